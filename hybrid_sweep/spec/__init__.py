"""The sweep file as typed values."""
