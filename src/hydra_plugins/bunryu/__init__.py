"""bunryu's Hydra plugins; imported by every Hydra app's start, so nothing heavy here."""
