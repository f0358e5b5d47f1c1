"""Apply a label file to the whole catalogue; only what differs is written."""

from silo_app.catalogue import Catalogue, SiloKey
from silo_app.errors import LabelsInvalid
from silo_app.imaging.labels import LabelTable

__all__ = ["label_all"]


def label_all(catalogue: Catalogue, table: LabelTable, key: SiloKey) -> int:
    """Label every view as the file says; return how many of its keys name no view.

    Raises `LabelsInvalid`, changing nothing, if not a single key names a view: it is a file of something else.
    """
    with catalogue.writing() as writer:
        views = list(writer.identities())
        labels, unmatched = table.matched(views, key.name)
        if views and not labels:
            raise LabelsInvalid(
                f"none of the {len(table.keys)} keys of the file ({table.keyed_by}) names one of the {len(views)} images; "
                "the images are ingested, without these labels",
                where=str(table.path),
                remedy="Correct `key` and `key_column` of `labels` in local/silo.yaml, or name the right file.",
            )
        before = writer.labels()
        after = {view.digest: labels.get(view.digest, ()) for view in views}
        writer.relabel({digest: known for digest, known in after.items() if known != before.get(digest, ())})
    return unmatched
