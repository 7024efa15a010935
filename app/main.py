"""Start the app: ``streamlit run app/main.py``."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Streamlit puts this folder, not the repository, on the path: our rooms would be
# missing and our own modules importable under two names.
sys.path[:] = [str(HERE.parent), *(p for p in sys.path if p not in (str(HERE), str(HERE.parent)))]

from app.shell import main  # noqa: E402

main()
