"""Start the app: ``streamlit run app/main.py``."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Streamlit puts this folder, not the repository, on the path: our rooms would be
# missing and our own modules importable under two names.
sys.path[:] = [str(HERE.parent), *(p for p in sys.path if p not in (str(HERE), str(HERE.parent)))]

import streamlit as st  # noqa: E402

from app import first_paint  # noqa: E402

if __name__ == "__main__":
    from app.shell import main

    main()
else:
    # What `streamlit run` serves. Every session then runs this file as a script.
    app = st.App(__file__, routes=first_paint.routes(), lifespan=first_paint.opened)
