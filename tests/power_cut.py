"""A power cut, in process: a training stops at a batch, and nothing more is saved."""
import pytorch_lightning as pl


class PowerCut(Exception): "Nothing is saved when this is raised."


class Cut(pl.Callback):
    "The power goes, once, as a batch starts."
    at: tuple | None = None  # epoch, batch

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) != Cut.at: return
        Cut.at = None
        raise PowerCut
