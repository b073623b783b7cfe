"""What MIG can make of each card."""

import pynvml
import pytest

from hami_device_plugin.inventory import announced
from hami_device_plugin.mig import SILENT, Division, Divisions, chosen
from hami_device_plugin.settings import MigGroup, Settings, cluster_settings
from hamikit.codec import encode_register
from hamikit.deviceconfig import ConfigError
from hamikit.gpu import Card, GpuError
from hamikit.instances import MigProfile, Placement

CARD = Card("GPU-a", 0, "NVIDIA A100-SXM4-40GB", 40960)
T4 = Card("GPU-t", 1, "Tesla T4", 15360)
# NVML's number -> name, id, slices, multiprocessors, MiB, starts, size.
ROWS = {
    0: (b"MIG 1g.5gb", 19, 1, 14, 4864, (0, 1, 2, 3, 4, 5, 6), 1),
    7: (b"MIG 1g.5gb+me", 20, 1, 14, 4864, (0, 1, 2, 3, 4, 5, 6), 1),
    9: (b"MIG 1g.10gb", 15, 1, 14, 9984, (0, 2, 4, 6), 2),
    1: (b"MIG 2g.10gb", 14, 2, 28, 9984, (0, 2, 4), 2),
    2: (b"MIG 3g.20gb", 9, 3, 42, 20096, (0, 4), 4),
    3: (b"MIG 4g.20gb", 5, 4, 56, 20096, (0,), 4),
    4: (b"MIG 7g.40gb", 0, 7, 98, 40448, (0,), 8),
}


class Binding:
    """NVML's calls about MIG; cards in `modes` know it."""

    NVMLError = pynvml.NVMLError
    NVML_ERROR_NOT_SUPPORTED = pynvml.NVML_ERROR_NOT_SUPPORTED
    NVML_ERROR_INVALID_ARGUMENT = pynvml.NVML_ERROR_INVALID_ARGUMENT
    NVML_ERROR_FUNCTION_NOT_FOUND = pynvml.NVML_ERROR_FUNCTION_NOT_FOUND
    NVML_GPU_INSTANCE_PROFILE_COUNT = pynvml.NVML_GPU_INSTANCE_PROFILE_COUNT
    c_nvmlGpuInstancePlacement_t = pynvml.c_nvmlGpuInstancePlacement_t  # noqa: N815

    def __init__(self, **modes):
        self.modes, self.asked = modes, 0
        self.faults = {}

    def _fault(self, call):
        """Fail as told."""
        if call in self.faults:
            raise pynvml.NVMLError(self.faults[call])

    def nvmlDeviceGetMigMode(self, handle):  # noqa: N802
        """Current and pending."""
        self._fault("mode")
        if handle not in self.modes:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return [self.modes[handle]] * 2

    def nvmlDeviceGetMinorNumber(self, _handle):  # noqa: N802
        """The card's device node."""
        self._fault("minor")
        return 3

    def nvmlDeviceGetGpuInstanceProfileInfo(self, _handle, number, version):  # noqa: N802
        """A profile by NVML's number."""
        assert version == 2
        self.asked += 1
        self._fault("profile")
        if number not in ROWS:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        info = pynvml.c_nvmlGpuInstanceProfileInfo_v2_t()
        name, info.id, info.sliceCount, info.multiprocessorCount, info.memorySizeMB, *_ = ROWS[
            number
        ]
        info.name = name
        return info

    def nvmlDeviceGetGpuInstancePossiblePlacements(self, _handle, profile, out, count):  # noqa: N802
        """Fill in where it can be."""
        self._fault("places")
        *_, starts, size = next(row for row in ROWS.values() if row[1] == profile)
        count._obj.value = len(starts)
        for n, start in enumerate(starts if out is not None else ()):
            out[n].start, out[n].size = start, size


def look(binding, **more):
    """One look at an A100 and a T4."""
    return Divisions(lambda: binding, **more).look([(CARD, "a"), (T4, "t")])


def profiles_of(division):
    """Names of a division's profiles."""
    return [profile.name for profile in division.profiles]


def test_a_card_in_mig_mode_has_its_useful_profiles():
    """No variants, and no 4g, which takes the place of a 3g and has no more memory."""
    found = look(Binding(a=1))
    assert set(found) == {"GPU-a"}
    division = found["GPU-a"]
    assert (division.on, division.minor) == (True, 3)
    assert profiles_of(division) == ["1g.5gb", "2g.10gb", "3g.20gb", "7g.40gb"]
    assert [profile.core for profile in division.profiles] == [15, 29, 43, 100]
    assert division.profiles[1] == MigProfile(
        "2g.10gb", 9984, 29, 2, (Placement(0, 2), Placement(2, 2), Placement(4, 2))
    )


def test_profiles_are_asked_for_once_a_mode():
    """A look every few seconds asks for the mode alone."""
    binding = Binding(a=1)
    divisions = Divisions(lambda: binding)
    for _ in range(3):
        divisions.look([(CARD, "a")])
    asked = binding.asked
    binding.modes["a"] = 0
    assert divisions.look([(CARD, "a")])["GPU-a"] == Division(on=False)
    binding.modes["a"] = 1
    assert len(divisions.look([(CARD, "a")])["GPU-a"].profiles) == 4
    assert (asked, binding.asked) == (pynvml.NVML_GPU_INSTANCE_PROFILE_COUNT, 2 * asked)


@pytest.mark.parametrize("call", ["mode", "minor", "profile", "places"])
def test_an_error_that_passes_changes_nothing(call):
    """The card stays what it was; one that was not asked before is kept back until it tells."""
    binding = Binding(a=1)
    divisions = Divisions(lambda: binding)
    known = divisions.look([(CARD, "a")])
    binding.faults[call] = pynvml.NVML_ERROR_UNKNOWN
    assert divisions.look([(CARD, "a")]) == known
    fresh = Divisions(lambda: binding)
    found = fresh.look([(CARD, "a"), (T4, "t")])
    (card,) = announced([CARD], Settings(mode="mig"), (), found)
    assert not card.health
    assert profiles_of(found["GPU-a"]) == []
    binding.faults.clear()
    assert fresh.look([(CARD, "a"), (T4, "t")]) == known


def test_a_card_that_was_switched_on_meanwhile_does_not_keep_its_old_mode():
    """It is divided, and what can be made of it comes when it tells."""
    binding = Binding(a=0)
    divisions = Divisions(lambda: binding)
    divisions.look([(CARD, "a")])
    binding.modes["a"] = 1
    binding.faults["profile"] = pynvml.NVML_ERROR_TIMEOUT
    assert divisions.look([(CARD, "a")])["GPU-a"] == Division(on=True)


def test_a_card_without_profiles_is_asked_again():
    """A driver that had none ready may have them later."""
    binding = Binding(a=1)
    divisions = Divisions(lambda: binding)
    binding.faults["profile"] = pynvml.NVML_ERROR_NOT_SUPPORTED
    assert profiles_of(divisions.look([(CARD, "a")])["GPU-a"]) == []
    binding.faults.clear()
    assert len(profiles_of(divisions.look([(CARD, "a")])["GPU-a"])) == 4


def test_a_driver_without_mig_knows_none():
    """Older than MIG itself."""
    binding = Binding(a=1)
    binding.faults["mode"] = pynvml.NVML_ERROR_FUNCTION_NOT_FOUND
    assert look(binding) == {}


def test_a_card_that_does_not_answer_stays_what_it_was():
    """Its pods' instances do not vanish with it."""
    binding = Binding(a=1)
    divisions = Divisions(lambda: binding)
    known = divisions.look([(CARD, "a")])
    assert divisions.look([(T4, "t")]) == known

    def gone():
        raise GpuError("no driver")

    assert Divisions(gone).look([(CARD, "a")]) == {}


@pytest.mark.parametrize(
    ("groups", "names"),
    [
        ([MigGroup(("A100",), ("1g.5gb", "4g.20gb"))], ["1g.5gb", "4g.20gb"]),
        ([MigGroup(("A30",), ("1g.6gb",))], ["1g.5gb", "2g.10gb", "3g.20gb", "7g.40gb"]),
        ([MigGroup(("A100",), ("7g.39gb", "1g.5gb+me"))], ["7g.40gb", "1g.5gb+me"]),
        ([MigGroup(("A100",), ("6g.30gb",))], []),
        ([MigGroup(("A1",), ("7g.40gb",)), MigGroup(("A100-SXM4",), ("1g.5gb",))], ["1g.5gb"]),
    ],
)
def test_the_operators_list_counts(groups, names):
    """By the most exact model; a name that the driver spells otherwise means its plain profile."""
    assert profiles_of(look(Binding(a=1), groups=lambda: groups)["GPU-a"]) == names


def test_the_list_is_read_as_hami_writes_it():
    """And a wrong one names the key."""
    groups = [{"models": ["A30"], "profiles": ["1g.6gb", "4g.24gb"]}]
    settings = cluster_settings({"migProfileAllowlist": groups})
    assert settings.mig_groups == (MigGroup(("A30",), ("1g.6gb", "4g.24gb")),)
    with pytest.raises(ConfigError, match="migProfileAllowlist"):
        cluster_settings({"migProfileAllowlist": [{"models": "A30"}]})


def test_no_profiles_without_an_offer():
    """A card that is not asked yet offers nothing."""
    assert chosen("NVIDIA A30", ()) == ()


def test_cards_in_mig_mode_are_registered_with_their_profiles():
    """In HAMi's form, unscaled; a card without MIG on the same node is shared as ever."""
    one = MigProfile("7g.40gb", 40448, 100, 7, (Placement(0, 8),))
    settings = Settings(mode="mig", memory_scaling=2.0, core_scaling=2.0)
    cards = announced([CARD, T4], settings, (), {"GPU-a": Division(True, 0, (one,))})
    assert encode_register(cards) == (
        '[{"id":"GPU-a","count":10,"devmem":40960,"devcore":100,"type":"NVIDIA A100-SXM4-40GB",'
        '"mode":"mig","migProfiles":[{"name":"7g.40gb","memoryMB":40448,"core":100,"sliceCount":7,'
        '"placements":[{"start":0,"size":8}]}],"health":true},'
        '{"id":"GPU-t","index":1,"count":10,"devmem":30720,"devcore":200,"type":"NVIDIA-Tesla T4",'
        '"mode":"hami-core","health":true}]'
    )


@pytest.mark.parametrize(
    ("wish", "division", "mode", "health"),
    [
        ("mig", Division(False, 0), "hami-core", False),
        ("mig", Division(True, 0), "mig", False),
        ("mig", Division(True, 0, (MigProfile(),)), "mig", True),
        ("hami-core", Division(True, 0, (MigProfile(),)), "mig", False),
        ("auto", Division(True, 0, (MigProfile(),)), "mig", True),
        ("auto", Division(True, 0), "mig", False),
        ("auto", Division(False), "hami-core", True),
        ("auto", Division(on=False, known=False), "hami-core", False),
        ("auto", None, "hami-core", True),
        ("hami-core", Division(False, 0), "hami-core", True),
        ("hami-core", None, "hami-core", True),
        ("mig", None, "hami-core", True),
        ("mps", Division(False, 0), "mps", True),
        ("mig", SILENT, "hami-core", False),
        ("hami-core", SILENT, "hami-core", False),
    ],
)
def test_a_card_in_the_other_mode_gets_no_pods(wish, division, mode, health):
    """Until it is switched; it is announced as it is, for who has something of it keeps that."""
    known = {} if division is None else {"GPU-a": division}
    (card,) = announced([CARD], Settings(mode=wish), (), known)
    assert (card.mode, card.health) == (mode, health)
