"""The result of a study with patient-level privacy, small enough to check by hand."""

from semc.reporting import StudyResult
from semc.reporting.privacy_statement import PrivacyStatement
from tests.semc.reporting.study_result import SITES, study_result

STATEMENT = PrivacyStatement(
    epsilon=3.678,
    epsilon_limit=4.0,
    epsilon_prv=3.374,
    delta=1e-5,
    noise_multiplier=2.0,
    max_grad_norm=1.0,
    patient_fraction=0.1,
    steps=200,
    trainable="heads",
    num_trained_values=49_000,
    initial_weights="random weights from the study's seed, then trained by the coordinator on phantom images",
    initial_weights_sha256="b" * 64,
)
RATES = {"accuracy": 0.81, "balanced_accuracy": 0.79, "macro_f1": 0.77, "recall": [0.8, None, 0.78]}


def private_result(told: tuple[str, ...] = ("north", "south")) -> StudyResult:
    """Return a study of three sites; those in `told` told their rates."""
    content = study_result(alone=None).model_dump()
    for entry in content["rounds"]:
        entry |= {"validation": {}, "test": {}, "train_loss": {}}
        entry["ledger_heads"] = dict.fromkeys(SITES, f"{entry['round']}" * 64)
    for site in content["sites"]:
        site |= {"num_train_examples": None, "test_confusion": None}
        site["disclosed"] = RATES if site["site"] in told else None
    content |= {
        "privacy": "patient_dp",
        "bn": "frozen",
        "guarantee": STATEMENT.model_dump(),
        "what_is_local": ["number of training images and of patients"],
    }
    return StudyResult.model_validate(content)
