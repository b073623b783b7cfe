"""The webhook's settings: the only reader of argv and the environment."""

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hamikit import names
from hamikit.arguments import Flag, Parser, address, log_level, seconds, truth

RUN_DIR = "/run/hami"
CERTIFICATE_DIR = "/run/hami/tls"
REGISTRATION = "hami-webhook"
SERVICE = "hami-webhook"
DAY_S = 86400
DEVICE_CONFIG_MAP = "hami-device-config"
SECRET = "hami-webhook-tls"  # noqa: S105 - a name


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """`hami-webhook serve`: where it listens, what it decides by, how it ends."""

    address: tuple[str, int]
    status_address: tuple[str, int]
    certificate_dir: str
    run_dir: str
    device_config_file: str | None
    enable_ascend: bool
    device_config_map: str
    namespace: str
    scheduler_name: str
    take_default: bool
    drain_s: float
    finish_s: float
    log_level: str


@dataclass(frozen=True, slots=True)
class CertificatesConfig:
    """`hami-webhook certificates`: which objects hold the certificate, and where it goes.

    Without `self_signed` only the registration's conditions are kept, by the device configuration.
    """

    certificate_dir: str
    namespace: str
    service: str
    secret: str
    registration: str
    device_config_file: str | None
    enable_ascend: bool
    self_signed: bool
    interval_s: float
    once: bool
    log_level: str

    @property
    def host(self) -> str:
        """The name by which the API server calls us."""
        return f"{self.service}.{self.namespace}.svc"


@dataclass(frozen=True, slots=True)
class ConditionsConfig:
    """`hami-webhook matchconditions`: whose resource names to print a condition for."""

    device_config_file: str | None
    enable_ascend: bool


@dataclass(frozen=True, slots=True)
class CheckConfig:
    """`hami-webhook check`: the file to say everything about."""

    file: str


Config = ServeConfig | CertificatesConfig | ConditionsConfig | CheckConfig


def parse(argv: Sequence[str], environ: Mapping[str, str] = os.environ) -> Config:
    """Read a command and its flags; without a command it is `serve`.

    Each flag has a variable as its default. A mistake ends with one line and code 2.
    """
    parser = _parser(environ)
    commandless = not argv or (argv[0].startswith("-") and argv[0] not in ("-h", "--help"))
    options = parser.parse_args(["serve", *argv] if commandless else argv)
    return _READERS[options.command](options)


def _serve(options: argparse.Namespace) -> ServeConfig:
    return ServeConfig(
        address=options.address,
        status_address=options.status_address,
        certificate_dir=options.certificate_dir,
        run_dir=options.run_dir,
        device_config_file=options.device_config_file or None,
        enable_ascend=options.enable_ascend,
        device_config_map=options.device_config_map,
        namespace=options.namespace,
        scheduler_name=options.scheduler_name,
        take_default=options.force_overwrite_default_scheduler,
        drain_s=options.drain_seconds,
        finish_s=options.finish_seconds,
        log_level=options.log_level,
    )


def _certificates(options: argparse.Namespace) -> CertificatesConfig:
    return CertificatesConfig(
        certificate_dir=options.certificate_dir,
        namespace=options.namespace,
        service=options.service,
        secret=options.secret,
        registration=options.registration,
        device_config_file=options.device_config_file or None,
        enable_ascend=options.enable_ascend,
        self_signed=options.self_signed,
        interval_s=options.interval_seconds,
        once=options.once,
        log_level=options.log_level,
    )


def _conditions(options: argparse.Namespace) -> ConditionsConfig:
    return ConditionsConfig(options.device_config_file or None, options.enable_ascend)


def _check(options: argparse.Namespace) -> CheckConfig:
    return CheckConfig(options.file)


_READERS: dict[str, Callable[[argparse.Namespace], Config]] = {
    "serve": _serve,
    "certificates": _certificates,
    "matchconditions": _conditions,
    "check": _check,
}


_EVERYWHERE = "0.0.0.0:"
_TIME = seconds(0, DAY_S)
_DEVICE = (
    Flag("--device-config-file", "DEVICE_CONFIG_FILE", "", "device-config.yaml"),
    Flag("--enable-ascend", "ENABLE_ASCEND", "false", "whether chips under `vnpus:` count", truth),
)
_COMMON = (
    *_DEVICE,
    Flag("--certificate-dir", "CERTIFICATE_DIR", CERTIFICATE_DIR, "holds tls.crt and tls.key"),
    Flag("--namespace", "POD_NAMESPACE", names.NAMESPACE, "where our own objects are"),
    log_level(),
)
_SERVE = (
    Flag("--address", "ADDRESS", f"{_EVERYWHERE}{names.PORT_WEBHOOK}", "HOST:PORT for TLS",
         address),
    Flag("--status-address", "STATUS_ADDRESS", f"{_EVERYWHERE}{names.PORT_WEBHOOK_STATUS}",
         "HOST:PORT for health and metrics", address),
    Flag("--run-dir", "RUN_DIR", RUN_DIR, "a writable folder for our socket"),
    Flag("--device-config-map", "DEVICE_CONFIG_MAP", DEVICE_CONFIG_MAP, "where the file is from"),
    Flag("--scheduler-name", "SCHEDULER_NAME", names.SCHEDULER_NAME, "who places device pods",
         may_be_empty=True),
    Flag("--force-overwrite-default-scheduler", "FORCE_OVERWRITE_DEFAULT_SCHEDULER", "true",
         "take over pods that name default-scheduler", truth),
    Flag("--drain-seconds", "DRAIN_SECONDS", "5", "from not ready to not accepting", _TIME),
    Flag("--finish-seconds", "FINISH_SECONDS", "10", "for answers that are due at the end", _TIME),
)  # fmt: skip
_CERTIFICATES = (
    Flag("--service", "SERVICE", SERVICE, "the Service that the API server calls"),
    Flag("--secret", "SECRET", SECRET, "the Secret that keeps the certificate"),
    Flag("--registration", "REGISTRATION", REGISTRATION, "the MutatingWebhookConfiguration"),
    Flag("--self-signed", "SELF_SIGNED", "true", "false: another one issues the certificate",
         truth),
    Flag("--interval-seconds", "INTERVAL_SECONDS", "60", "between two looks", _TIME),
)  # fmt: skip
_COMMANDS: dict[str, tuple[str, tuple[Flag, ...]]] = {
    "serve": ("answer admission questions (the default command)", (*_SERVE, *_COMMON)),
    "certificates": (
        "keep the certificate and the registration as they have to be",
        (*_CERTIFICATES, *_COMMON),
    ),
    "matchconditions": ("print the CEL condition for the resource names in use", _DEVICE),
    "check": ("say everything that is wrong with a device-config.yaml", ()),
}


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = Parser(prog="hami-webhook", description="Admission of GPU pods.")
    commands = parser.add_subparsers(dest="command", required=True)
    added = {}
    for name, (text, flags) in _COMMANDS.items():
        added[name] = commands.add_parser(name, help=text, description=text)
        for flag in flags:
            flag.add(added[name], environ)
    added["certificates"].add_argument(
        "--once", action="store_true", help="end after the first success"
    )
    added["check"].add_argument("file", help="the file")
    return parser
