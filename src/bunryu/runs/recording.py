"""train.log, and in the manifest how the run ended."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from bunryu.errors import ModelError
from bunryu.runs.run import Run
from bunryu.system.secrets import mask_streams
from bunryu.system.signals import Interrupted

log = logging.getLogger(__name__)


@contextmanager
def recording(run: Run) -> Iterator[None]:
    """Copy bunryu's log lines to train.log while inside, and record how it ends."""
    if not run.writes:
        yield
        return
    handler = logging.FileHandler(run.path / "train.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    mask_streams(handler.stream)
    logger = logging.getLogger("bunryu")
    logger.addHandler(handler)
    try:
        yield
    except (KeyboardInterrupt, Interrupted) as error:
        with suppress(OSError, ModelError):  # of a full disk or a vanished run: the error itself says more
            run.end("interrupted", str(error) or type(error).__name__)
        log.warning("interrupted; to go on: bunryu resume %s", shlex.quote(str(run.path)))
        raise
    except BaseException as error:
        handler.handle(logger.makeRecord(logger.name, logging.ERROR, "", 0, "%s", (error,), None))
        with suppress(OSError, ModelError):
            run.end("failed", f"{type(error).__name__}: {error}")
        raise
    else:
        run.end("finished")
    finally:
        logger.removeHandler(handler)
        with suppress(OSError):
            handler.close()
