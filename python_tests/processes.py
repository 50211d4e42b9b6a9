"""Python processes of their own, for what cannot be tested inside one that has imported the package already."""

import os
import subprocess
import sys
import sysconfig

INSTALLED = sysconfig.get_paths()["purelib"]


def run_python(code, path, **env):
    """Runs ``code`` where ``path`` comes first and the installed packages next, and returns the finished process.

    Without ``site`` (-S): an editable install of this very package would otherwise lend its compiled part to a copy.
    """
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(path), INSTALLED])} | env
    return subprocess.run([sys.executable, "-S", "-c", code], env=env, cwd=path, capture_output=True, text=True)
