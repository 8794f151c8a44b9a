"""A machine for the row scripts on which everything is in place, and nothing runs."""

import os

# Stands in for the interpreter: notes what it is asked, makes the files a run leaves, fails for one row and method.
FAKE_PYTHON = r"""#!/usr/bin/env bash
[ "$1" != -c ] || exit 0
echo "$*" >>"$CALLS"
while [ $# -gt 0 ]; do
    if [ "$1" = --output_dir ]; then output=$2; fi
    shift
done
case ${output:-} in
    "") exit 0 ;;
    */adamae/pretrain_ucf101_r085) exit 1 ;;
    *) mkdir -p "$output"; touch "$output/checkpoint-99.pth" "$output/checkpoint-399.pth" ;;
esac
"""


def make_program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def make_world(tmp_path):
    """Variables of a machine on which everything is in place, and nothing runs."""
    for dataset in ("ucf101", "hmdb51", "k400", "ssv2", "ssv2full"):
        for name in ("train", "val", "test"):
            path = tmp_path / "data" / dataset / f"{name}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("a.mp4 0\n")
    return {"PYTHON": make_program(tmp_path / "bin/python", FAKE_PYTHON), "CALLS": str(tmp_path / "calls"), "GPUS": "8",
            "DATA_ROOT": str(tmp_path / "data"), "OUTPUT_ROOT": str(tmp_path / "out"), "ANY_SIZE": "1"}


def calls(world):
    """The programs that ran: (module, last folder of the output)."""
    lines = [line.split() for line in open(world["CALLS"])] if os.path.exists(world["CALLS"]) else []
    return [(next(word[13:] for word in line if word.startswith("tats.engines.")),
             "/".join(line[line.index("--output_dir") + 1].split("/")[-2:]) if "--output_dir" in line else "")
            for line in lines]


def assert_ends_with_one_line(done, *parts):
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: ")
    assert all(part in done.stderr for part in parts), done.stderr
