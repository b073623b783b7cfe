"""The generated protocol code is what the .proto file says.

To make it anew, from components/device-plugin:
    uv run python -m grpc_tools.protoc -I proto --python_out=src --pyi_out=src \
        hami_device_plugin/api/deviceplugin.proto
"""

from importlib import resources
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

HERE = Path(__file__).parent.parent
NAME = "hami_device_plugin/api/deviceplugin"


def test_the_generated_code_is_fresh(tmp_path: Path) -> None:
    """Generating from the .proto file again changes nothing."""
    include = resources.files(grpc_tools) / "_proto"
    arguments = [
        "protoc",
        f"-I{HERE / 'proto'}",
        f"-I{include}",
        f"--python_out={tmp_path}",
        f"--pyi_out={tmp_path}",
        f"{NAME}.proto",
    ]
    assert protoc.main(arguments) == 0
    for suffix in ("_pb2.py", "_pb2.pyi"):
        committed = (HERE / "src" / f"{NAME}{suffix}").read_text()
        assert committed == (tmp_path / f"{NAME}{suffix}").read_text()
