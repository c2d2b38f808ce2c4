"""List files of CULane and BDD100K, in miniature."""

import pytest

from pydistill.recipes.lanes.lists import Entry, read_list

PICTURE = "driver_23_30frame/05151649_0422.MP4/00000.jpg"
LABEL = "laneseg_label_w16/driver_23_30frame/05151649_0422.MP4/00000.png"


@pytest.mark.parametrize(
    "line, entry",
    [
        (f"/{PICTURE} /{LABEL} 1 0 1 1", Entry(PICTURE, LABEL, (1, 0, 1, 1))),
        (f"/{PICTURE}", Entry(PICTURE)),
        (PICTURE, Entry(PICTURE)),
        ("/train_img/train/x.jpg /train_label/final_train/x.png 1 1 1 1",
         Entry("train_img/train/x.jpg", "train_label/final_train/x.png", (1, 1, 1, 1))),
    ],
)  # fmt: skip
def test_lines(tmp_path, line, entry):
    file = tmp_path / "list.txt"
    file.write_text(f"{line}\r\n\n{line}")
    assert read_list(file) == [entry, entry]


@pytest.mark.parametrize("line", ["/a.jpg /a.png", "/a.jpg /a.png 1 1 1", "/a.jpg /a.png 1 1 1 2", "/a.jpg 1 1 1 1"])
def test_malformed_line(tmp_path, line):
    file = tmp_path / "list.txt"
    file.write_text(f"/a.jpg\n{line}\n/a /b /c\n/b.jpg\n")
    with pytest.raises(ValueError, match=rf"in {file}, line 2, got '{line}'"):
        read_list(file)
    with pytest.warns(UserWarning, match=rf"^read_list: left out 2; the first: .* {file}, line 2, got '{line}'$"):
        entries = read_list(file, malformed="skip")
    assert entries == [Entry("a.jpg"), Entry("b.jpg")]
    assert [entry.source for entry in entries] == [f"{file}, line 1", f"{file}, line 4"]
    with pytest.raises(ValueError, match="expected malformed to be raise or skip, got 'warn'"):
        read_list(file, malformed="warn")
