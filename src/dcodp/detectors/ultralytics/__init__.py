"""Every net of ultralytics, as a checkpoint describes it: its architecture, opening and writing files, the adapter."""
