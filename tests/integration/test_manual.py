"""The manual page says what the program says."""
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_the_manual_is_made_of_the_programs_own_rows(memfs_bin):
    done = subprocess.run([str(ROOT / "scripts" / "manual"), "--check", memfs_bin],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
