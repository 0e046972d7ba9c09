"""Where a run speaks."""

from rich.console import Console


class Terminal(Console):
    """A console whose run goes on when the reader of its output has gone, as behind `| head`: it falls silent."""

    def on_broken_pipe(self) -> None:
        try:
            super().on_broken_pipe()
        except SystemExit:
            self.quiet = True
