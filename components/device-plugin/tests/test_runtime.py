"""Whether this node's runtime acts on CDI devices."""

from pathlib import Path

import pytest

from hami_device_plugin.runtime import Runtime, cri_settings, why_off

TWO, ONE = "containerd://2.2.1", "containerd://1.7.24"
V3 = "version = 3\n[plugins.'io.containerd.cri.v1.runtime']\n"
V2 = 'version = 2\n[plugins."io.containerd.grpc.v1.cri"]\n'


@pytest.mark.parametrize(
    ("version", "text", "words"),
    [
        (TWO, "", None),
        (TWO, V3 + "enable_cdi = true", None),
        (TWO, V3 + "enable_cdi = false", "enable_cdi=false in"),
        (ONE, "", "default of containerd://1.7.24"),
        (ONE, V2 + "enable_cdi = true", None),
        (ONE, V2 + "enable_cdi = false", "enable_cdi=false in"),
        ("containerd://1.6.33", V2 + "enable_cdi = true", "CDI came with containerd 1.7"),
        (TWO, V3 + 'cdi_spec_dirs = ["/etc/cdi", "/var/run/cdi"]', None),
        (TWO, V3 + 'cdi_spec_dirs = ["/etc/cdi", "/run/cdi"]', None),
        (TWO, V3 + 'cdi_spec_dirs = ["/etc/cdi"]', "does not look for CDI specifications"),
        ("docker://27.0.1", "", "which has no CDI"),
        ("cri-o://1.34.0", "", None),
        ("", "", None),
        (TWO, "this is [no toml", None),
    ],
)
def test_cdi_by_version_and_settings(tmp_path, version, text, words):
    """The reason names the file and what to change."""
    config = tmp_path / "config.toml"
    config.write_text(text)
    runtime = Runtime(config, Path("/var/run/cdi"))
    runtime.version = version
    said = runtime.cdi_off()
    assert (said is None) if words is None else (words in said)


def test_without_a_file_the_defaults_hold(tmp_path):
    """A containerd without configuration is the common case."""
    missing = cri_settings(tmp_path / "none.toml")
    assert why_off(TWO, missing, "p", "/var/run/cdi") is None


def test_imports_are_laid_over(tmp_path):
    """Relative patterns count from the file's folder, in order of their names."""
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "config.toml").write_text(
        'imports = ["conf.d/*.toml"]\n' + V3 + "enable_cdi = true"
    )
    (tmp_path / "conf.d/50-off.toml").write_text(V3 + "enable_cdi = false")
    assert cri_settings(tmp_path / "config.toml") == {"enable_cdi": False}
