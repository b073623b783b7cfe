"""The node's cards: looked at in a thread of their own, told of under the operator's settings."""

import threading
from collections.abc import Callable

from hami_device_plugin.afresh import DriverReplaced, SettingsChanged, StartAfresh
from hami_device_plugin.config import Config
from hami_device_plugin.health import Cards, Health, Report
from hami_device_plugin.metrics import Metrics
from hami_device_plugin.mig import Divisions
from hami_device_plugin.settings import Settings
from hami_device_plugin.standing import Standing
from hami_device_plugin.stock import Stock
from hamikit import names
from hamikit.truce import Truce


class CardsSide:
    """From NVML to `stock`.

    `on_news` hears of what others must know, `on_look` of every look, `end` of what ends us.
    """

    def __init__(
        self,
        config: Config,
        settings: Settings,
        nvml: Cards,
        stock: Stock,
        metrics: Metrics,
        *,
        on_news: Callable[[], None],
        on_look: Callable[[], None],
        end: Callable[[StartAfresh], None],
    ) -> None:
        self._nvml, self._metrics, self._end = nvml, metrics, end
        self._on_look = on_look
        self.divisions = Divisions(
            nvml.open, lambda: self.settings.mig_groups, lambda: self.settings.static_mig
        )
        self.standing = Standing(
            settings,
            stock,
            metrics,
            on_news=on_news,
            nvml=nvml.open if config.topology else None,
            divide=self.divisions.look,
        )
        self.truce = Truce(names.NODE_MIG_PAUSE_PLUGIN)
        self._stop = threading.Event()
        self._health = Health(
            nvml,
            self._on_report,
            policy=config.xids,
            stop=self._stop,
            quiet_s=config.quiet_s,
            truce=self.truce,
            on_xid=self._on_xid,
        )

    @property
    def settings(self) -> Settings:
        """The operator's settings as of now."""
        return self.standing.settings

    def start(self) -> None:
        """Look at the cards from now on."""
        threading.Thread(target=self._health.run, name="cards", daemon=True).start()

    def look(self) -> None:
        """Look at once."""
        self._health.look()

    def adopt(self, settings: Settings) -> None:
        """Go on with other settings.

        Raises:
            SettingsChanged: kubelet would have to be told at registration.
        """
        now = self.settings
        # Of the family kubelet knows the name alone; the webhook's settings are in it, too.
        if (settings.family.count, settings.prefer_ids) != (now.family.count, now.prefer_ids):
            raise SettingsChanged("settings that kubelet is told at registration were changed")
        self.standing.adopt(settings)

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()

    def close(self) -> None:
        """Let go of the driver."""
        self._nvml.close()

    def _on_report(self, report: Report) -> None:
        self.standing.report(report)
        self._on_look()
        if report.fault and self._nvml.replaced:
            self._end(DriverReplaced(f"the driver was replaced: {report.fault}"))

    def _on_xid(self, uuid: str, xid: int) -> None:
        self._metrics.xids.labels(uuid, str(xid)).inc()
