import numpy as np
import pytest
from monai.transforms import LoadImage

from silo_app.encoder.reader import RadiographReader
from silo_app.errors import ImageUnsupported
from silo_app.imaging.radiograph import read_radiograph

# MONAI makes an instance of every reader that it has, and one of them complains that it has no GPU decoder.
pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader:UserWarning")


@pytest.fixture
def monai_load():
    return LoadImage(reader=RadiographReader(), image_only=True, ensure_channel_first=True)


def test_monai_gets_rows_first_and_bright_for_dense(monai_load, make_dicom, make_picture, tmp_path):
    pixels = make_picture(rows=64, columns=48)
    normal, inverse = tmp_path / "normal.dcm", tmp_path / "inverse.dcm"
    normal.write_bytes(make_dicom(pixels, PixelSpacing=[0.5, 0.5]))
    inverse.write_bytes(make_dicom(4095 - pixels, PhotometricInterpretation="MONOCHROME1"))
    image = monai_load(normal)
    assert tuple(image.shape) == (1, 64, 48)
    assert np.allclose(image[0].numpy(), read_radiograph(normal).pixels)
    assert np.allclose(image[0].numpy(), monai_load(inverse)[0].numpy(), atol=1e-3)
    assert np.diag(image.affine.numpy())[:2].tolist() == [0.5, 0.5]


def test_meta_data_name_nobody(monai_load, make_dicom, tmp_path):
    file = tmp_path / "one.dcm"
    file.write_bytes(make_dicom(PatientName="Doe^Jane", PatientID="P1234"))
    said = str({key: value for key, value in monai_load(file).meta.items() if key != "filename_or_obj"})
    assert "Doe" not in said
    assert "P1234" not in said


def test_a_refused_file_says_why():
    with pytest.raises(ImageUnsupported):
        RadiographReader().read(["/nowhere/at-all.dcm"])
