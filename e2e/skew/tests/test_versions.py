"""Behaviour of e2e.skew.versions: which version came before."""

import pytest

from e2e.skew.versions import COMPONENTS, HistoryError, previous, refs, with_image


def history(*, tags=(), began="began", head="head"):
    """A git that knows some tags, and since when a changelog has something unreleased."""
    commits = {"HEAD": head, "began^": "last", **{f"{tag}^{{commit}}": c for tag, c in tags}}

    def ask(verb, *arguments):
        if verb == "rev-parse":
            return commits[arguments[0]]
        return "\n".join(tag for tag, _ in tags) if verb == "tag" else began

    return ask


def test_the_newest_tag_is_the_previous_version():
    """Git lists them newest first."""
    tags = (("webhook/v0.2.0", "b"), ("webhook/v0.1.0", "a"))
    assert previous("webhook", history(tags=tags)) == "b"


def test_a_release_that_was_just_made_is_compared_with_the_one_before():
    """Not with itself."""
    tags = (("webhook/v0.2.0", "head"), ("webhook/v0.1.0", "a"))
    assert previous("webhook", history(tags=tags)) == "a"


def test_before_the_first_tag_the_changelog_says_when_a_version_was_closed():
    """The commit before the one that began `## Unreleased`."""
    assert previous("webhook", history()) == "last"


def test_a_history_that_is_cut_off_is_told():
    """As that of a shallow clone is."""
    with pytest.raises(HistoryError, match="SKEW=webhook=REF"):
        previous("webhook", history(began=""))


def test_components_and_versions_are_chosen_by_words():
    """A name alone means its previous version; no word means all of them."""
    assert refs("webhook=v1 monitor") == {"webhook": "v1", "monitor": ""}
    assert refs("") == dict.fromkeys(COMPONENTS, "")
    with pytest.raises(HistoryError, match="'webhok' is no component"):
        refs("webhok")


def test_a_version_runs_its_own_image_and_nobody_elses():
    """kube-scheduler beside the extender stays as it is."""

    def workload(*images):
        containers = [{"name": str(i), "image": image} for i, image in enumerate(images)]
        return {"spec": {"template": {"spec": {"containers": containers}}}}

    found = with_image(workload("kube-scheduler:v1", "hami-extender:0.1.0"), "hami-extender", "x:1")
    assert found == workload("kube-scheduler:v1", "x:1")
    assert with_image({"kind": "Role"}, "hami-extender", "x:1") == {"kind": "Role"}
