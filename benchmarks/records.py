"""The JSON of a run: valid at every moment, since it is replaced as a whole after each case."""

import json
import os
import re
import tempfile
from pathlib import Path

SCHEMA = 2
RESULTS = Path(__file__).parent / "results"


def default_path(machine):
    """``results/<device>-<date>.json``."""
    device = re.sub(r"[^a-z0-9]+", "-", machine["device"].lower()).strip("-")
    return RESULTS / f"{device}-{machine['date'][:16].replace(':', '')}.json"


def device_of(machine):
    """A GPU, or a CPU with its vectors: of one name there are machines with wider ones and with narrower."""
    return f"{machine['device']}, {machine['cpu_capability']}" if machine["kind"] == "cpu" else machine["device"]


def packages_of_peers(record):
    """["package version"] of the other processes, but for PyTorch where it is the record's own."""
    own = ("torch", record["machine"]["torch"])
    found = [pair for versions in record["peers"].values() for pair in versions.items()]
    return [f"{package} {version}" for package, version in found if (package, version) != own]


def write(record, path):
    """Replace the file ``path``, where there is one to write.

    Raises:
        OSError: it cannot be written; the file from before stays.
    """
    if path is None:
        return
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False, encoding="utf-8") as file:
        try:
            json.dump(record, file, indent=1, ensure_ascii=False, allow_nan=False)
            file.write("\n")
            file.close()
            os.chmod(file.name, 0o644)
            os.replace(file.name, path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def read(path):
    """
    Raises:
        ValueError: ``path`` cannot be read, or holds no record of this schema.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise ValueError(f"{path} is not a benchmark record of schema {SCHEMA}")
    return record
