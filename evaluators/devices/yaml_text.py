"""Writes device profiles as YAML."""

from collections.abc import Mapping
from typing import Any


def yaml_text(content: Mapping[str, Any]) -> str:
    """Returns a mapping as YAML that people read and YAML 1.1 parses: floats have four significant digits."""
    import yaml

    return str(yaml.dump(content, Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=110))


def _dumper() -> Any:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes floats as 5.9e+10: without the sign and the point, YAML 1.1 reads them as text."""

    def number(dumper: Any, value: float) -> Any:
        text = f"{value:.4g}"
        mantissa, _, exponent = text.partition("e")
        mantissa += "" if "." in mantissa else ".0"
        return dumper.represent_scalar(
            "tag:yaml.org,2002:float", f"{mantissa}e{exponent}" if exponent else mantissa
        )

    Dumper.add_representer(float, number)
    return Dumper
