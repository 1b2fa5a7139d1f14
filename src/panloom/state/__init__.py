"""Where Panloom's records live: one small contract (``contract``) and the stores that keep it (``sqlite``)."""
