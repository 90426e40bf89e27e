"""Small copies of public datasets in their official layout, with pictures that a program draws.

Column names and codes are those of the official descriptions, which the readers' docstrings cite.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

Draw = Callable[[int, str], bytes]


@dataclass(frozen=True)
class MadeDataset:
    """What was written, and what a reader must say of it."""

    root: Path
    table: Path
    truth: Mapping[str, bool | None]
    """Image id, and whether it needs an in-person visit."""
    lesions: int
    code: tuple[str, str] = ("", "")
    """A cell of the table that holds a code, and the same cell with a code that no one knows."""
    removable_picture: tuple[Path, str] = (Path(), "")
    """One picture's file, and the name under which the listing must miss it."""
    archive: bool = False
    tables: tuple[Path, ...] = field(default=())
    """All tables without which the dataset cannot be read."""


def drawn(seed: int, kind: str = "JPEG") -> bytes:
    """A small picture; another seed gives other bytes."""
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def write_table(path: Path, header: str, *rows: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join((header, *rows)) + "\n", encoding="utf-8")
    return path


def write_dicts(path: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_file(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def ham10000(root: Path, draw: Draw = drawn) -> MadeDataset:
    table = write_table(
        root / "HAM10000_metadata.csv",
        "lesion_id,image_id,dx,dx_type,age,sex,localization,dataset",
        "HAM_0000001,ISIC_0024306,mel,histo,80.0,male,scalp,rosendahl",
        "HAM_0000001,ISIC_0024307,mel,histo,80.0,male,scalp,rosendahl",
        "HAM_0000002,ISIC_0024308,nv,follow_up,,unknown,unknown,vidir_molemax",
    )
    for seed, name in enumerate(("ISIC_0024306", "ISIC_0024307", "ISIC_0024308")):
        write_file(root / f"HAM10000_images_part_{1 + seed % 2}" / f"{name}.jpg", draw(seed, "JPEG"))
    return MadeDataset(
        root,
        table,
        {"ISIC_0024306": True, "ISIC_0024307": True, "ISIC_0024308": False},
        2,
        (",nv,", ",nvv,"),
        (root / "HAM10000_images_part_1" / "ISIC_0024306.jpg", "ISIC_0024306"),
        archive=True,
        tables=(table,),
    )


def isic_2018(root: Path, draw: Draw = drawn) -> MadeDataset:
    header = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC"
    train = root / "ISIC2018_Task3_Training_GroundTruth" / "ISIC2018_Task3_Training_GroundTruth.csv"
    write_table(
        train, header, "ISIC_0024306,1.0,0.0,0.0,0.0,0.0,0.0,0.0", "ISIC_0024308,0.0,1.0,0.0,0.0,0.0,0.0,0.0"
    )
    groups = write_table(
        root / "ISIC2018_Task3_Training_LesionGroupings.csv",
        "image,lesion_id,diagnosis_confirm_type",
        "ISIC_0024306,HAM_0000001,histopathology",
        "ISIC_0024308,HAM_0000002,serial imaging showing no change",
    )
    for part, image, row in (
        ("Validation", "ISIC_0034321", "0.0,0.0,0.0,1.0,0.0,0.0,0.0"),
        ("Test", "ISIC_0034524", "0.0,0.0,0.0,0.0,0.0,0.0,1.0"),
    ):
        name = f"ISIC2018_Task3_{part}_GroundTruth"
        write_table(root / name / f"{name}.csv", header, f"{image},{row}")
    for seed, (part, image) in enumerate(
        (
            ("Training", "ISIC_0024306"),
            ("Training", "ISIC_0024308"),
            ("Validation", "ISIC_0034321"),
            ("Test", "ISIC_0034524"),
        )
    ):
        write_file(root / f"ISIC2018_Task3_{part}_Input" / f"{image}.jpg", draw(seed, "JPEG"))
    return MadeDataset(
        root,
        train,
        {"ISIC_0024306": True, "ISIC_0024308": False, "ISIC_0034321": True, "ISIC_0034524": False},
        4,
        ("ISIC_0024308,0.0,1.0", "ISIC_0024308,1.0,1.0"),
        (root / "ISIC2018_Task3_Test_Input" / "ISIC_0034524.jpg", "ISIC_0034524"),
        archive=True,
        tables=(groups,),
    )


def isic_2019(root: Path, draw: Draw = drawn) -> MadeDataset:
    classes = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")

    def hot(name: str) -> str:
        return ",".join("1.0" if name == other else "0.0" for other in classes)

    rows = {"ISIC_0024306": "MEL", "ISIC_0053453": "SCC", "ISIC_0000002_downsampled": "NV"}
    train = write_table(
        root / "ISIC_2019_Training_GroundTruth.csv",
        f"image,{','.join(classes)}",
        *(f"{image},{hot(code)}" for image, code in rows.items()),
    )
    facts = write_table(
        root / "ISIC_2019_Training_Metadata.csv",
        "image,age_approx,anatom_site_general,lesion_id,sex",
        "ISIC_0024306,80.0,head/neck,HAM_0000001,male",
        "ISIC_0053453,55.0,anterior torso,BCN_0003884,female",
        "ISIC_0000002_downsampled,,,,",
    )
    write_table(
        root / "ISIC_2019_Test_GroundTruth.csv",
        f"image,{','.join(classes)},score_weight,validation_weight",
        f"ISIC_0034525,{hot('UNK')},1.0,0.0",
    )
    tested = write_table(
        root / "ISIC_2019_Test_Metadata.csv",
        "image,age_approx,anatom_site_general,sex",
        "ISIC_0034525,35.0,palms/soles,female",
    )
    for seed, image in enumerate(rows):
        write_file(root / "ISIC_2019_Training_Input" / f"{image}.jpg", draw(seed, "JPEG"))
    write_file(root / "ISIC_2019_Test_Input" / "ISIC_0034525.jpg", draw(9, "JPEG"))
    return MadeDataset(
        root,
        train,
        {"ISIC_0024306": True, "ISIC_0053453": True, "ISIC_0000002": False, "ISIC_0034525": None},
        4,
        (f"ISIC_0053453,{hot('SCC')}", f"ISIC_0053453,{hot('nothing')}"),
        (root / "ISIC_2019_Training_Input" / "ISIC_0053453.jpg", "ISIC_0053453"),
        archive=True,
        tables=(facts, tested),
    )


def isic_2020(root: Path, draw: Draw = drawn) -> MadeDataset:
    table = write_table(
        root / "ISIC_2020_Training_GroundTruth_v2.csv",
        "image_name,patient_id,lesion_id,sex,age_approx,anatom_site_general_challenge,diagnosis,"
        "benign_malignant,target",
        "ISIC_2637011,IP_7279968,IL_7972535,male,45.0,head/neck,unknown,benign,0",
        "ISIC_0149568,IP_0962375,IL_1234567,female,55.0,upper extremity,melanoma,malignant,1",
        "ISIC_0015719,IP_3075186,IL_1111111,female,45.0,upper extremity,nevus,benign,0",
        "ISIC_0052212,IP_2842074,IL_2222222,female,,torso,atypical melanocytic proliferation,benign,0",
        "ISIC_9999999,IP_3075186,IL_3333333,female,45.0,upper extremity,nevus,benign,0",
    )
    write_table(
        root / "ISIC_2020_Training_Duplicates.csv", "image_name_1,image_name_2", "ISIC_0015719,ISIC_9999999"
    )
    for seed, image in enumerate(("2637011", "0149568", "0015719", "0052212", "9999999")):
        write_file(root / "train" / f"ISIC_{image}.jpg", draw(seed, "JPEG"))
    return MadeDataset(
        root,
        table,
        {"ISIC_2637011": False, "ISIC_0149568": True, "ISIC_0015719": False, "ISIC_0052212": None},
        4,
        (",nevus,", ",naevus,"),
        (root / "train" / "ISIC_0149568.jpg", "ISIC_0149568"),
        archive=True,
        tables=(table,),
    )


SLICE_3D = {
    "ISIC_0015670": ("Benign", "0", ""),
    "ISIC_0082829": (
        "Malignant::Malignant melanocytic proliferations (Melanoma)::Melanoma in situ",
        "1",
        "IL_6727506",
    ),
    "ISIC_0096034": (
        "Indeterminate::Indeterminate epidermal proliferations::Solar or actinic keratosis",
        "0",
        "IL_7777777",
    ),
    "ISIC_0104229": (
        "Indeterminate::Indeterminate melanocytic proliferations::Atypical melanocytic neoplasm",
        "0",
        "IL_8888888",
    ),
}


def isic_2024(root: Path, draw: Draw = drawn) -> MadeDataset:
    table = write_dicts(
        root / "train-metadata.csv",
        [
            {
                "isic_id": image,
                "target": target,
                "patient_id": f"IP_{1235828 + number // 2}",
                "age_approx": "60.0" if number else "NA",
                "sex": "male",
                "anatom_site_general": "lower extremity",
                "clin_size_long_diam_mm": "3.04",
                "image_type": "TBP tile: close-up",
                "tbp_tile_type": "3D: white",
                "tbp_lv_dnn_lesion_confidence": "97.5",
                "attribution": "Memorial Sloan Kettering Cancer Center",
                "copyright_license": "CC-BY",
                "lesion_id": lesion,
                "iddx_full": dx,
                "iddx_1": dx.split("::")[0],
                "mel_thick_mm": "",
            }
            for number, (image, (dx, target, lesion)) in enumerate(SLICE_3D.items())
        ],
    )
    file = root / "train-image.hdf5"
    with h5py.File(file, "w") as stream:
        for seed, image in enumerate(SLICE_3D):
            stream[image] = np.void(draw(seed, "JPEG"))
    return MadeDataset(
        root,
        table,
        {"ISIC_0015670": False, "ISIC_0082829": True, "ISIC_0096034": True, "ISIC_0104229": None},
        4,
        ("Melanoma in situ", "Melanoma in sito"),
        (file, "ISIC_0082829"),
        archive=True,
        tables=(table,),
    )


def bcn20000(root: Path, draw: Draw = drawn) -> MadeDataset:
    header = "bcn_filename,age_approx,anatom_site_general,diagnosis,lesion_id,capture_date,sex,split"
    train = write_table(
        root / "bcn_20k_train.csv",
        header,
        "BCN_0000000001.jpg,55.0,anterior torso,MEL,BCN_0003884,2012-05-16,male,train",
        "BCN_0000000003.jpg,50.0,anterior torso,MEL,BCN_0003884,2015-07-09,male,train",
        "BCN_0000000004.jpg,85.0,head/neck,AK,BCN_0000019,2015-11-23,male,train",
    )
    write_table(
        root / "bcn_20k_test.csv",
        "bcn_filename,age_approx,anatom_site_general,sex",
        "BCN_0000000002.jpg,30.0,,female",
    )
    for seed, image in enumerate(("train/1", "test/2", "train/3", "train/4")):
        part, number = image.split("/")
        write_file(
            root / f"BCN_20k_{part}" / f"bcn_20k_{part}" / f"BCN_000000000{number}.jpg", draw(seed, "JPEG")
        )
    return MadeDataset(
        root,
        train,
        {"BCN_0000000001": True, "BCN_0000000002": None, "BCN_0000000003": True, "BCN_0000000004": True},
        3,
        (",AK,", ",AKX,"),
        (root / "BCN_20k_train" / "bcn_20k_train" / "BCN_0000000004.jpg", "BCN_0000000004"),
        archive=True,
    )


PAD_COLUMNS = (
    "patient_id,lesion_id,smoke,drink,background_father,background_mother,age,pesticide,gender,"
    "skin_cancer_history,cancer_history,has_piped_water,has_sewage_system,fitspatrick,region,diameter_1,"
    "diameter_2,diagnostic,itch,grew,hurt,changed,bleed,elevation,img_id,biopsed"
)


def pad_ufes_20(root: Path, draw: Draw = drawn) -> MadeDataset:
    table = write_table(
        root / "metadata.csv",
        PAD_COLUMNS,
        "PAT_1516,1765,,,,,8,,,,,,,,ARM,,,NEV,False,False,False,False,False,False,PAT_1516_1765_530.png,False",
        "PAT_46,881,False,False,POMERANIA,POMERANIA,55,False,FEMALE,True,True,True,True,3.0,NECK,6.0,5.0,BCC,"
        "True,True,False,True,True,True,PAT_46_881_939.png,True",
        "PAT_47,881,,,,,77,,,,,,,,FACE,,,ACK,True,False,False,False,False,False,PAT_47_881_140.png,False",
    )
    for seed, image in enumerate(("PAT_1516_1765_530", "PAT_46_881_939", "PAT_47_881_140")):
        write_file(root / "imgs_part_1" / f"{image}.png", draw(seed, "PNG"))
    return MadeDataset(
        root,
        table,
        {"PAT_1516_1765_530": False, "PAT_46_881_939": True, "PAT_47_881_140": True},
        3,
        (",NEV,", ",NEW,"),
        (root / "imgs_part_1" / "PAT_46_881_939.png", "PAT_46_881_939"),
        tables=(table,),
    )


def milk10k(root: Path, draw: Draw = drawn) -> MadeDataset:
    truth = write_table(
        root / "MILK10k_Training_GroundTruth.csv",
        "lesion_id,AKIEC,BCC,BEN_OTH,BKL,DF,INF,MAL_OTH,MEL,NV,SCCKA,VASC",
        "IL_0000652,0.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0",
        "IL_0003176,0.0,0.0,0.0,0.0,0.0,1.0,0.0,0.0,0.0,0.0,0.0",
    )
    pairs = {
        "ISIC_8149219": ("IL_0000652", "clinical: close-up"),
        "ISIC_4671410": ("IL_0000652", "dermoscopic"),
        "ISIC_4779385": ("IL_0003176", "clinical: close-up"),
        "ISIC_2742693": ("IL_0003176", "dermoscopic"),
    }
    table = write_dicts(
        root / "MILK10k_Training_Metadata.csv",
        [
            {
                "lesion_id": lesion,
                "image_type": kind,
                "isic_id": image,
                "attribution": "MILK study team",
                "copyright_license": "CC-BY-NC",
                "image_manipulation": "instrument only",
                "age_approx": "75.0",
                "sex": "female",
                "skin_tone_class": "3",
                "site": "head_neck_face",
                "MONET_hair": "0.05",
            }
            for image, (lesion, kind) in pairs.items()
        ],
    )
    write_dicts(
        root / "MILK10k_Training_Supplement.csv",
        [
            {
                "isic_id": image,
                "diagnosis_full": "Basal cell carcinoma",
                "diagnosis_confirm_type": "histopathology",
                "invasion_thickness_interval": "",
            }
            for image in pairs
        ],
    )
    for seed, (image, (lesion, _)) in enumerate(pairs.items()):
        write_file(root / "MILK10k_Training_Input" / lesion / f"{image}.jpg", draw(seed, "JPEG"))
    return MadeDataset(
        root,
        truth,
        {"ISIC_8149219": True, "ISIC_4671410": True, "ISIC_4779385": None, "ISIC_2742693": None},
        2,
        ("IL_0003176,0.0", "IL_0003176,1.0"),
        (root / "MILK10k_Training_Input" / "IL_0000652" / "ISIC_4671410.jpg", "ISIC_4671410"),
        archive=True,
        tables=(truth, table),
    )


def derm7pt(root: Path, draw: Draw = drawn) -> MadeDataset:
    table = write_table(
        root / "release_v0" / "meta" / "meta.csv",
        "case_num,diagnosis,seven_point_score,pigment_network,streaks,pigmentation,regression_structures,"
        "dots_and_globules,blue_whitish_veil,vascular_structures,level_of_diagnostic_difficulty,elevation,"
        "location,sex,management,clinic,derm,case_id,notes",
        "1,basal cell carcinoma,0,absent,absent,absent,absent,absent,absent,arborizing,medium,nodular,back,"
        "female,excision,NEL/NEL025.JPG,NEL/Nel026.jpg,,",
        "2,clark nevus,0,absent,absent,absent,absent,irregular,absent,absent,medium,palpable,head neck,"
        "female,excision,NEL/NEL027.JPG,NEL/Nel028.jpg,,",
        "3,miscellaneous,0,absent,absent,absent,absent,absent,absent,absent,low,palpable,back,male,"
        "no further examination,NEL/Nel032.jpg,NEL/Nel033.jpg,,",
    )
    for split, row in (("train", 0), ("valid", 1), ("test", 2)):
        write_table(root / "release_v0" / "meta" / f"{split}_indexes.csv", "indexes", str(row))
    names = ("NEL025", "Nel026", "NEL027", "Nel028", "Nel032", "Nel033")
    for seed, name in enumerate(names):
        write_file(root / "release_v0" / "images" / "NEL" / f"{name}.jpg", draw(seed, "JPEG"))
    return MadeDataset(
        root,
        table,
        {
            "NEL/NEL025.JPG": True,
            "NEL/Nel026.jpg": True,
            "NEL/NEL027.JPG": False,
            "NEL/Nel028.jpg": False,
            "NEL/Nel032.jpg": None,
            "NEL/Nel033.jpg": None,
        },
        3,
        ("clark nevus", "clarke nevus"),
        (root / "release_v0" / "images" / "NEL" / "Nel026.jpg", "NEL/Nel026.jpg"),
        tables=(table,),
    )


def ph2(root: Path, draw: Draw = drawn) -> MadeDataset:
    table = write_table(
        root / "PH2_dataset.txt",
        "||   Name   ||   Histological Diagnosis   ||   Clinical Diagnosis   ||   Asymmetry   |   Pigment "
        "Network   |   Dots/Globules   |   Streaks   |   Regression Areas   |   Blue-Whitish Veil   ||   "
        "Colors   ||",
        "|| IMD003 ||                        ||                  0 ||         0  |   T  |   A  |   A  |  A  "
        "|   A   ||   4    ||",
        "|| IMD009 ||                        ||                  1 ||         0  |   T  |   A  |   A  |  A  "
        "|   A   ||   3    ||",
        "|| IMD058 ||  Melanoma              ||                  2 ||         2  |   AT |   AT |   P  |  P  "
        "|   P   ||   3  4 ||",
        "",
        "Legends:",
        "Clinical Diagnosis:",
        "0 - Common Nevus; 1 - Atypical Nevus; 2 - Melanoma.",
    )
    for seed, image in enumerate(("IMD003", "IMD009", "IMD058")):
        folder = root / "PH2 Dataset images" / image
        write_file(folder / f"{image}_Dermoscopic_Image" / f"{image}.bmp", draw(seed, "BMP"))
        write_file(folder / f"{image}_lesion" / f"{image}_lesion.bmp", draw(90 + seed, "BMP"))
    return MadeDataset(
        root,
        table,
        {"IMD003": False, "IMD009": False, "IMD058": True},
        3,
        ("1 ||         0", "7 ||         0"),
        (root / "PH2 Dataset images" / "IMD009" / "IMD009_Dermoscopic_Image" / "IMD009.bmp", "IMD009"),
        tables=(table,),
    )


def fitzpatrick17k(root: Path, draw: Draw = drawn) -> MadeDataset:
    hashes = [
        "5e82a45bc5d78bd24ae9202d194423f8",
        "fa2911a9b13b6f8af79cb700937cc14f",
        "d2bac3c9" * 4,
        "0" * 32,
    ]
    table = write_table(
        root / "fitzpatrick17k.csv",
        "md5hash,fitzpatrick_scale,fitzpatrick_centaur,label,nine_partition_label,three_partition_label,qc,url,"
        "url_alphanum",
        f"{hashes[0]},3,3,psoriasis,inflammatory,non-neoplastic,,https://a.org/p.jpg,httpaorgpjpg.jpg",
        f"{hashes[1]},-1,1,melanoma,malignant melanoma,malignant,,https://a.org/m.jpg,httpaorgmjpg.jpg",
        f"{hashes[2]},2,3,dermatofibroma,benign dermal,benign,,https://a.org/d.jpg,httpaorgdjpg.jpg",
        f"{hashes[3]},6,6,halo nevus,benign melanocyte,benign,3 Wrongly labelled,https://example.org/h.jpg,"
        "httpexampleorghjpg.jpg",
    )
    for seed, name in enumerate((hashes[0], hashes[1], "httpaorgdjpg", hashes[3])):
        write_file(root / "images" / f"{name}.jpg", draw(seed, "JPEG"))
    return MadeDataset(
        root,
        table,
        dict(zip(hashes, (None, True, False, None), strict=True)),
        4,
        (",dermatofibroma,", ",dermatofibrom,"),
        (root / "images" / f"{hashes[1]}.jpg", hashes[1]),
        tables=(table,),
    )


def ddi(root: Path, draw: Draw = drawn) -> MadeDataset:
    table = write_table(
        root / "ddi_metadata.csv",
        ",DDI_ID,DDI_file,skin_tone,malignant,disease",
        "0,1,000001.png,56,True,melanoma-in-situ",
        "1,2,000002.png,12,False,seborrheic-keratosis-irritated",
        "2,3,000003.png,34,False,actinic-keratosis",
        "3,4,000004.png,34,False,folliculitis",
    )
    for seed in range(4):
        write_file(root / "images" / f"00000{seed + 1}.png", draw(seed, "PNG"))
    return MadeDataset(
        root,
        table,
        {"000001": True, "000002": False, "000003": True, "000004": None},
        4,
        ("melanoma-in-situ", "melanoma-in-sitv"),
        (root / "images" / "000002.png", "000002"),
        tables=(table,),
    )


def scin(root: Path, draw: Draw = drawn) -> MadeDataset:
    cases = write_table(
        root / "dataset" / "scin_cases.csv",
        "case_id,source,release,year,age_group,sex_at_birth,fitzpatrick_skin_type,image_1_path,image_2_path,"
        "image_3_path,image_1_shot_type",
        "-1000600354148496558,SCIN,1.0.0,2023,AGE_30_TO_39,FEMALE,FST2,dataset/images/-31.png,"
        "dataset/images/-32.png,,CLOSE_UP",
        "-1002039107727665188,SCIN,1.0.0,2023,,OTHER_OR_UNSPECIFIED,NONE_SELECTED,dataset/images/-33.png,,,CLOSE_UP",
    )
    labels = write_dicts(
        root / "dataset" / "scin_labels.csv",
        [
            {
                "case_id": "-1000600354148496558",
                "dermatologist_gradable_for_skin_condition_1": "DEFAULT_YES_IMAGE_QUALITY_SUFFICIENT",
                "weighted_skin_condition_label": "{'Eczema': 0.31, 'SCC/SCCIS': 0.69}",
            },
            {
                "case_id": "-1002039107727665188",
                "dermatologist_gradable_for_skin_condition_1": "NO_IMAGE_QUALITY_INSUFFICIENT",
                "weighted_skin_condition_label": "",
            },
        ],
    )
    for seed, name in enumerate(("-31", "-32", "-33")):
        write_file(root / "dataset" / "images" / f"{name}.png", draw(seed, "PNG"))
    return MadeDataset(
        root,
        cases,
        {"-31": None, "-32": None, "-33": None},
        2,
        (",FST2,", ",FST9,"),
        (root / "dataset" / "images" / "-32.png", "-32"),
        tables=(cases, labels),
    )


DERMAMNIST_LABELS = {"train": [4, 5, 0, 5, 5, 5, 5, 5], "val": [1, 5], "test": [6, 2]}


def dermamnist(root: Path, draw: Draw = drawn) -> MadeDataset:
    rng = np.random.default_rng(0)
    arrays = {}
    for split, labels in DERMAMNIST_LABELS.items():
        arrays[f"{split}_images"] = rng.integers(0, 256, (len(labels), 28, 28, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.array(labels, dtype=np.uint8)[:, None]
    root.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(root / "dermamnist.npz", **arrays)
    return MadeDataset(
        root,
        root / "dermamnist.npz",
        {
            f"{split}-{number:05}": label in (0, 1, 4)
            for split, labels in DERMAMNIST_LABELS.items()
            for number, label in enumerate(labels)
        },
        12,
    )


MADE: Mapping[str, Callable[..., MadeDataset]] = {
    maker.__name__: maker
    for maker in (
        ham10000,
        isic_2018,
        isic_2019,
        isic_2020,
        isic_2024,
        bcn20000,
        pad_ufes_20,
        milk10k,
        derm7pt,
        ph2,
        fitzpatrick17k,
        ddi,
        scin,
        dermamnist,
    )
}
