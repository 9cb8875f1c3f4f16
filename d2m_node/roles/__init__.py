"""One file per role and per step that roles share: they order the steps and decide nothing."""
