"""C on a Cortex-M4F, in qemu: its golden predictions, and the bytes that m.h tells."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from exporting import written

ARM, QEMU, MAKE = (shutil.which(name) or "" for name in ("arm-none-eabi-gcc", "qemu-system-arm", "make"))
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not (ARM and QEMU and MAKE), reason="needs gcc-arm-none-eabi and qemu-system-arm"),
]

# Fills the stack below itself with a pattern, computes an answer, and prints how much of the pattern is gone.
STACK = """
#include <stdio.h>
#include "m.h"

static %(kind)s x[1 << 16];
static float y[1 << 16];
#ifdef STREAMED
static m_state series;
#endif

__attribute__((noinline)) static void compute(void)
{
#ifdef STREAMED
    m_reset(&series);
    m_step(&series, (const void *)x);
    m_output(&series, y);
#else
    m_predict(%(arguments)s);
#endif
}

int main(void)
{
    volatile char here;
    volatile char *const high = &here - 32, *const low = high - 100000;
    for (volatile char *p = low; p < high; ++p) *p = 0x5A;
    compute();
    volatile char *p = low;
    while (p < high && *p == 0x5A) ++p;
    printf("%%ld\\n", (long)(high - p));
    return 0;
}
"""


def _make(folder: Path, target: str) -> str:
    done = subprocess.run(
        [MAKE, "--silent", "--no-print-directory", "-C", str(folder), target],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_golden_predictions_and_bytes(tmp_path: Path) -> None:
    tried = 0
    for name, folder, _ in written("c", tmp_path):
        _make(folder, "qemu")
        header = (folder / "m.h").read_text("ascii")
        told = re.search(r"RAM: at most ([\d,]+) bytes on the stack", header)
        assert told, header
        streamed = "m_step" in header
        stack = STACK % {
            "kind": "int" if "const int " in header else "float",
            "arguments": ", ".join(
                "9" if declared == "int timesteps" else f"({'const ' * declared.startswith('const')}void *){name}"
                for declared in "".join(re.findall(r"void m_predict\((.*)\);", header)).split(", ")
                for name in ["x" if declared.startswith("const") else "y"]
            ),
        }
        (folder / "m_golden.c").write_text("#define STREAMED\n" * streamed + stack, "ascii")
        used = int(_make(folder, "qemu"))
        assert used <= int(told[1].replace(",", "")), name
        tried += 1
    assert tried
