"""Data sets: names to labels, files to batches, and the procedural phantom."""

from semc.datasets.decode import decode_image
from semc.datasets.loader import evaluation_batches, steps_per_epoch, training_batches
from semc.datasets.ontology import Ontology
from semc.datasets.patient_order import adaptation_batches, patient_halves, spread_over_patients
from semc.datasets.patient_pool import PatientPool
from semc.datasets.sample import Batch, ManifestRow, SiteData
from semc.datasets.site_data import ImageCheck, build_site_data, check_images
from semc.datasets.site_images import SiteImages
from semc.datasets.transforms import Normalisation, normalisation_of

__all__ = [
    "Batch",
    "ImageCheck",
    "ManifestRow",
    "Normalisation",
    "Ontology",
    "PatientPool",
    "SiteData",
    "SiteImages",
    "adaptation_batches",
    "build_site_data",
    "check_images",
    "decode_image",
    "evaluation_batches",
    "normalisation_of",
    "patient_halves",
    "spread_over_patients",
    "steps_per_epoch",
    "training_batches",
]
