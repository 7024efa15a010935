"""Tables in, Plotly figures out. Usable in a notebook; knows nothing of Streamlit."""
