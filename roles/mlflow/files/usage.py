"""Add up MLflow's artifacts by experiment, and leave their sizes for `status`. Runs in the MLflow image.

The argument is the file to write. The store is listed directly: through the server each folder would be a
request. Of an object that has versions, only the newest counts.
"""

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def objects(place: str) -> Iterator[tuple[str, int]]:
    """Yield the path of each artifact below the store's root, and its size in bytes.

    Args:
        place: `s3://BUCKET/PREFIX`, or a folder.
    """
    if not place.startswith("s3://"):
        for folder, _, files in os.walk(place):
            for path in (Path(folder, name) for name in files):
                with suppress(FileNotFoundError):  # it was deleted in between
                    yield str(path.relative_to(place)), path.lstat().st_size
        return
    import boto3  # noqa: PLC0415 - a folder needs none

    bucket, _, prefix = place.removeprefix("s3://").partition("/")
    root = f"{prefix.strip('/')}/".lstrip("/")
    for page in boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=root):
        for found in page.get("Contents", []):
            yield found["Key"].removeprefix(root), found["Size"]


def main() -> None:
    """Write the sizes by the experiments' ids; what is in none has the id ""."""
    file, began = Path(sys.argv[1]), time.time()
    sizes: Counter[str] = Counter()
    for path, size in objects(os.environ["MLFLOW_ARTIFACTS_DESTINATION"]):
        top = path.split("/")[0]
        sizes[top if top.isdigit() else ""] += size
    part = file.with_suffix(".part")
    part.write_text(json.dumps({"time": began, "seconds": round(time.time() - began, 1), "bytes": sizes}))
    part.replace(file)
    print(f"{sizes.total() / 1e9:.2f} GB in {len(sizes)} experiments")


if __name__ == "__main__":
    main()
