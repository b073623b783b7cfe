"""Behaviour of hamikit.region_values: accounts as values."""

from types import MappingProxyType

from hamikit.region_values import Kind, Usage, UsageDevice, UsageProcess


def test_an_account_never_goes_below_zero():
    """A tenant may write shares larger than what its card has in use."""
    process = UsageProcess(3, 42, 1, 0, "x", MappingProxyType({(0, Kind.BUFFER): 4096}))
    device = UsageDevice(used_bytes=1024, peak_bytes=1024, refused=0, charged_ns=0, launches=0)
    usage = Usage("0.1.0", 0, 0, 0, (device,), (process,))
    assert usage.without([]) == usage
    assert [d.used_bytes for d in usage.without([3]).devices] == [0]
