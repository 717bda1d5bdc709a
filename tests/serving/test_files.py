"""Files: what they hold by their content, in training and Batch alike; and what doesn't unpack to a table."""

import datetime
import gzip
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pytest

from serving import files
from serving.tables import TableError
from streamlit_app import tables as batch
from streamlit_app.models import AppError
from tests.serving.test_tables import ROWS, by_batch, by_rest, cycle, same, train, written
from training.refusals import ProblemError

MOST = 10 * 2**20
COLUMNS = {
    "number": cycle(["1.5", "", "3"]),
    "whole": cycle(["1", "2", "30"]),
    "flag": cycle(["true", "false"]),
    "maybe": cycle(["true", "false", ""]),
    "city": cycle(["Graz", " Linz", "Köln", "None"]),
    "code": cycle(["1", "2.5", "x", "true", "2024-02-29 00:00:00"]),
    "day": cycle(["2024-02-29", ""]),
}
CSV = written(COLUMNS)


def zipped(members: Mapping[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return sink.getvalue()


def workbook(sheets: Mapping[str, Sequence[Sequence[Any]]]) -> bytes:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    sink = io.BytesIO()
    book.save(sink)
    return sink.getvalue()


def cell(text: str) -> Any:
    """What a program holds that writes this into a CSV."""
    if text in ("", "true", "false"):
        return {"": None, "true": True, "false": False}[text]
    for kind in (int, float, datetime.datetime.fromisoformat):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


LINES = [line.split(",") for line in CSV.splitlines()]
TYPED = [LINES[0], *([cell(text) for text in line] for line in LINES[1:])]
RECORDS = [dict(zip(LINES[0], row, strict=True)) for row in TYPED[1:]]
XLSX = workbook({"Empty": [], "Sales": [[], *TYPED, []], "More": [["x"], [1]]})
JSON_LINES = "\n".join(
    json.dumps({name: value for name, value in row.items() if value is not None}, default=str)
    for row in RECORDS
).encode()


@pytest.mark.parametrize(
    ("content", "notes"),
    [
        (XLSX, ("read from the Excel sheet 'Sales', the first of 2 that aren't empty",)),
        (JSON_LINES, ("read as JSON lines",)),
        (b"\xef\xbb\xbf" + JSON_LINES.replace(b"\n", b"\r\n") + b"\n\n", ("read as JSON lines",)),
        (gzip.compress(CSV.encode()), ("unpacked by gzip",)),
        (
            zipped({"a/": b"", "a/t.csv": CSV.encode("utf-16"), "__MACOSX/._t.csv": b"x"}),
            ("'a/t.csv' in the ZIP archive", "read as UTF-16"),
        ),
        (
            zipped({"t.xlsx": XLSX}),
            ("'t.xlsx' in the ZIP archive", "read from the Excel sheet 'Sales', the first of 2 that"),
        ),
    ],
    ids=["xlsx", "json lines", "json lines of windows", "gzip", "zip", "zipped xlsx"],
)
def test_a_table_means_the_same_in_every_file(tmp_path: Path, content: bytes, notes: Sequence[str]) -> None:
    by_csv = train(tmp_path, CSV)
    trained = train(tmp_path, content, "no.name")
    same(trained.frame, by_csv.frame)
    assert trained.data.digest == by_csv.data.digest
    upload = batch.read("no.name", content, trained.model.columns)
    for said in (trained.data.notes, upload.notes):
        assert all(text.startswith(note) for text, note in zip(said, notes, strict=False))
    for one in (trained, by_csv):
        same(by_batch(one, content), by_csv.frame)
        same(by_batch(one, CSV.encode()), by_csv.frame)
        same(by_rest(one, CSV.encode()), by_csv.frame)


def test_the_end_of_the_last_line_is_no_row(tmp_path: Path) -> None:
    notes = [train(tmp_path, JSON_LINES + end).data.notes for end in (b"", b"\n")]
    assert notes[0] == notes[1]


def test_rows_have_the_numbers_that_people_see(tmp_path: Path) -> None:
    trained = train(tmp_path, written({"a": cycle(["1", "2"])}))
    rows = [["a", "place"], [1, 1], [], ["x", 2]]
    lines = b'{"a": 1, "place": 1}\n\n{"a": "x", "place": 2}'
    for content, row in ((workbook({"s": [[], *rows]}), 5), (lines, 3)):
        matched = batch.match(batch.read("t", content, trained.model.columns), trained.model)
        assert [problem.rows for problem in matched.problems] == [(row,)]
        assert "expected a number; got 'x'" in matched.problems[0].text


def test_a_packed_parquet_file_is_one(tmp_path: Path) -> None:
    values = [n % 5 for n in range(ROWS)]
    body = gzip.compress(batch.as_parquet(pa.table({"a": values, "place": range(ROWS), "y": values})))
    trained = train(tmp_path, body, "t.parquet")
    assert trained.frame["a"].tolist() == by_batch(trained, body)["a"].tolist() == values
    with pytest.raises(ProblemError, match="write 'source: parquet'"):
        train(tmp_path, body)


REFUSED = {
    "two in a zip": (
        zipped({"a.csv": b"a\n1\n", "b.csv": b"b\n1\n"}),
        "of one file; got 2: 'a.csv', 'b.csv'",
    ),
    "many in a zip": (zipped({f"{n}.csv": b"" for n in range(9)}), "got 9: '0.csv', .*'4.csv' and 4 more"),
    "none in a zip": (zipped({}), "of one file; got 0"),
    "packed twice": (gzip.compress(gzip.compress(b"a\n1\n")), "got another archive. Unpack it once"),
    "a cut gzip": (gzip.compress(CSV.encode())[:-20], "expected a gzip file"),
    "a cut zip": (zipped({"a.csv": CSV.encode()})[:-20], "expected a gzip file, ZIP archive"),
    "a cut workbook": (zipped({"xl/workbook.xml": b"<"}), "expected a whole Excel workbook"),
    "an old workbook": (b"\xd0\xcf\x11\xe0" + b"\0" * 600, "before 2007 or with a password; save it as xlsx"),
    "a pdf": (b"%PDF-1.7", "got a PDF"),
    "an empty workbook": (workbook({"a": [], "b": [[]]}), "all of the workbook's sheets are empty"),
    "a title above": (
        workbook({"a": [["Sales"], ["x", "y"], [1, 2]]}),
        "expected one column for each name in row 1 .* got more values in row 2",
    ),
    "a broken line": (b'{"a": 1}\n{"a": \n', "expected a JSON object in every line; can't read line 2"),
    "another line": (b'{"a": 1}\n[1]\n', "got another value in line 2"),
    "another encoding": ('{"a": "ö"}\n'.encode("latin1") * 2, "Save the JSON lines in UTF-8"),
    "half a character": (b'{"a": "\\ud800"}\n', "column 'a': expected numbers, text"),
    "a list among numbers": (b'{"a": 1}\n{"a": [1]}\n', "column 'a': expected numbers, text"),
    "a gzip bomb": (gzip.compress(bytes(MOST + 1)), "expected at most 10 MB when it is unpacked; got more"),
    "a zip bomb": (zipped({"a": bytes(MOST + 1)}), "at most 10 MB"),
    "a bzip2 bomb": (zipped({"a": bytes(MOST + 1)}, zipfile.ZIP_BZIP2), "at most 10 MB"),
    "a workbook bomb": (zipped({"xl/workbook.xml": b"", "xl/a": bytes(MOST + 1)}), "at most 10 MB"),
    "a row far below": (
        workbook({"a": [["x"], [1]]}),
        "at most 10 MB",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_files_that_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    content, says = REFUSED[case]
    if case == "a row far below":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {info.filename: archive.read(info) for info in archive.infolist()}
        sheet = "xl/worksheets/sheet1.xml"
        members[sheet] = (
            members[sheet].replace(b'r="2"', b'r="99999999"').replace(b'r="A2"', b'r="A99999999"')
        )
        content = zipped(members)
    monkeypatch.setattr(batch, "MOST_BYTES", MOST)
    monkeypatch.setattr("training.tables._most_bytes", lambda: MOST)
    with pytest.raises(AppError, match=f"t.csv: .*{says}"):
        batch.read("t.csv", content, ())
    with pytest.raises(ProblemError, match=f"t: data.path: .*t.csv: .*{says}"):
        train(tmp_path, content)


@pytest.mark.parametrize(
    ("value", "says"), [(datetime.time(10, 30), "time64"), (datetime.timedelta(1.5), "duration")]
)
def test_times_in_excel_are_refused_by_name(tmp_path: Path, value: Any, says: str) -> None:
    content = workbook({"a": [["t", "a", "y"], *([value, n % 5, n % 7] for n in range(ROWS))]})
    with pytest.raises(ProblemError, match=rf"(?s)column 't': expected .*; got {says}.*write 'drop: \[t\]'"):
        train(tmp_path, content, "t.xlsx")
    assert train(tmp_path, content, "t.xlsx", drop=["t"]).data.schema.columns == ("a",)


def test_lists_in_json_lines_are_refused_by_name(tmp_path: Path) -> None:
    content = "\n".join(json.dumps({"l": [n], "a": n % 5, "y": n % 7}) for n in range(ROWS))
    with pytest.raises(ProblemError, match=r"(?s)column 'l': .*; got list.*write 'drop: \[l\]'"):
        train(tmp_path, content)


def test_what_excel_holds_is_not_guessed_and_its_texts_are_read_as_in_csv(tmp_path: Path) -> None:
    rows = [
        [1.234 if n % 2 else 7, "1,5" if n % 2 else "2,5", f"0050{n % 3}", "#N/A" if n % 3 else n, n, n % 7]
        for n in range(ROWS)
    ]
    trained = train(tmp_path, workbook({"a": [["n", "c", "zip", "gap", "place", "y"], *rows]}), "t.xlsx")
    assert trained.frame["n"].tolist()[:2] == [7, 1.234]
    assert trained.frame["c"].tolist()[:2] == [2.5, 1.5]
    assert trained.frame["zip"].tolist()[:2] == ["00500", "00501"]
    assert trained.frame["gap"].isna().tolist()[:4] == [False, True, True, False]


def test_a_file_that_cannot_be_opened_is_not_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.opened(tmp_path / "none", MOST)
    with pytest.raises(TableError):
        files.opened(b"%PDF", MOST)
