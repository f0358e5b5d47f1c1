"""The `silo` command: everything that a hospital, a researcher or a clinician does from a terminal."""

import typer

from silo_app.cli import (
    audit,
    catalogue,
    count,
    deid,
    desk,
    doctor,
    edge,
    evaluate,
    explain,
    index,
    ingest,
    init,
    job,
    labels,
    listen,
    model,
    privacy,
    sample,
    search,
    serve,
    survey,
)

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Siloscope inside a hospital: hold, train, index and search X-rays that never leave.",
    pretty_exceptions_enable=False,
)
edge.with_version(app)
app.command("doctor")(doctor.doctor)
app.command("init")(init.init)
app.command("ingest")(ingest.ingest)
app.command("listen")(listen.listen)
app.add_typer(catalogue.app, name="catalogue")
app.add_typer(labels.app, name="labels")
app.command("deid")(deid.deid)
app.command("deid-check")(deid.deid_check)
app.add_typer(index.app, name="index")
app.command("search")(search.search)
app.command("explain")(explain.explain)
app.command("count")(count.count)
app.command("serve")(serve.serve)
app.command("desk")(desk.desk)
app.add_typer(audit.app, name="audit")
app.add_typer(model.app, name="model")
app.command("evaluate")(evaluate.evaluate)
app.add_typer(job.app, name="job")
app.add_typer(survey.app, name="survey")
app.command("privacy")(privacy.privacy)
app.add_typer(sample.app, name="sample")


def main() -> None:
    """Run the command line, turning our errors into one line with a remedy."""
    edge.run(app)


if __name__ == "__main__":
    main()
