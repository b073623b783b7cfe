"""Why the plugin ends, to be started afresh: what it found cannot be mended from within."""


class StartAfresh(Exception):
    """The text says why."""


class Forgotten(StartAfresh):
    """kubelet has dropped this plugin without a word."""


class DriverReplaced(StartAfresh):
    """The driver is another one than the one that this process has loaded."""


class SettingsChanged(StartAfresh):
    """Settings that kubelet is told at registration."""
