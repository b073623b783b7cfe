"""Behaviour of hami_webhook.config: commands, flags and their variables."""

import pytest

from hami_webhook.config import (
    CertificatesConfig,
    CheckConfig,
    ConditionsConfig,
    ServeConfig,
    parse,
)


def test_serve_is_the_default_command():
    """The image runs without arguments."""
    config = parse([], {})
    assert config == parse(["serve"], {})
    assert config == ServeConfig(
        address=("0.0.0.0", 9443),
        status_address=("0.0.0.0", 9396),
        certificate_dir="/run/hami/tls",
        run_dir="/run/hami",
        device_config_file=None,
        enable_ascend=False,
        device_config_map="hami-device-config",
        namespace="hami-system",
        scheduler_name="hami-scheduler",
        take_default=True,
        drain_s=5.0,
        finish_s=10.0,
        log_level="info",
    )


def test_flags_win_over_variables():
    """And variables over defaults."""
    environ = {"SCHEDULER_NAME": "from-env", "DRAIN_SECONDS": "1", "ADDRESS": "[::]:1"}
    config = parse(["--scheduler-name=from-flag"], environ)
    assert isinstance(config, ServeConfig)
    assert (config.scheduler_name, config.drain_s) == ("from-flag", 1.0)
    assert config.address == ("::", 1)


def test_certificates():
    """The name in the certificate is the Service's."""
    config = parse(["certificates", "--once"], {"POD_NAMESPACE": "other"})
    assert isinstance(config, CertificatesConfig)
    assert config.host == "hami-webhook.other.svc"
    assert config.once


def test_check():
    """The file is its only argument."""
    assert parse(["check", "f"], {}) == CheckConfig("f")


def test_match_conditions():
    """One flag, one variable."""
    assert parse(["matchconditions"], {"DEVICE_CONFIG_FILE": "f"}) == ConditionsConfig(
        "f", enable_ascend=False
    )


@pytest.mark.parametrize(
    "argv",
    [
        ["--address", "9443"],
        ["--address", "h:99999"],
        ["--drain-seconds", "-1"],
        ["--finish-seconds", "soon"],
        ["--finish-seconds", "nan"],
        ["--log-level", "loud"],
        ["--force-overwrite-default-scheduler", "yes"],
        ["unknown"],
    ],
)
def test_a_mistake_ends_with_one_line_and_code_2(argv, capsys):
    """Which flag, which value, what it must be; no traceback."""
    with pytest.raises(SystemExit) as caught:
        parse(argv, {})
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert argv[0] in said


def test_a_percent_sign_in_a_variable_does_not_break_help(capsys):
    """Argparse formats help texts."""
    with pytest.raises(SystemExit) as caught:
        parse(["serve", "--help"], {"SCHEDULER_NAME": "100%s"})
    assert caught.value.code == 0
    assert "100%s" in capsys.readouterr().out
