"""What Streamlit cannot draw or hear by itself."""
