"""Configuration: one study YAML shared by all, one site YAML that never leaves its hospital."""

from semc.config.data import DataConfig
from semc.config.federation import FederationConfig
from semc.config.model import ModelConfig
from semc.config.objective import ObjectiveConfig
from semc.config.policy import BudgetConfig, DisclosureConfig, SitePolicy, load_policy
from semc.config.presets import PRESETS, Preset
from semc.config.pretraining import PretrainingConfig
from semc.config.privacy import PrivacyConfig
from semc.config.site import SiteConfig, SiteDataConfig, load_site
from semc.config.study import StudyConfig, load_study, packaged_studies, parse_study
from semc.config.training import TrainingConfig

__all__ = [
    "PRESETS",
    "BudgetConfig",
    "DataConfig",
    "DisclosureConfig",
    "FederationConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "Preset",
    "PretrainingConfig",
    "PrivacyConfig",
    "SiteConfig",
    "SiteDataConfig",
    "SitePolicy",
    "StudyConfig",
    "TrainingConfig",
    "load_policy",
    "load_site",
    "load_study",
    "packaged_studies",
    "parse_study",
]
