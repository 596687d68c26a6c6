"""The classes of PyTorch and torchmetrics that are named most often, to complete a name without its module."""

from __future__ import annotations

_NAMES = {
    "torch.optim": "Adadelta Adafactor Adagrad Adam AdamW Adamax ASGD LBFGS NAdam RAdam RMSprop Rprop SGD SparseAdam",
    "torch.optim.lr_scheduler": (
        "ChainedScheduler ConstantLR CosineAnnealingLR CosineAnnealingWarmRestarts CyclicLR ExponentialLR LambdaLR "
        "LinearLR MultiStepLR OneCycleLR PolynomialLR ReduceLROnPlateau SequentialLR StepLR"
    ),
    "torch.nn": (
        "BCELoss BCEWithLogitsLoss CosineEmbeddingLoss CrossEntropyLoss CTCLoss GaussianNLLLoss HuberLoss KLDivLoss "
        "L1Loss MarginRankingLoss MSELoss NLLLoss PoissonNLLLoss SmoothL1Loss TripletMarginLoss"
    ),
    "torchmetrics.classification": (
        "BinaryAccuracy BinaryAUROC BinaryAveragePrecision BinaryF1Score BinaryPrecision BinaryRecall "
        "MulticlassAccuracy MulticlassAUROC MulticlassConfusionMatrix MulticlassF1Score MulticlassPrecision "
        "MulticlassRecall MultilabelAccuracy MultilabelF1Score"
    ),
    "torchmetrics.regression": "MeanAbsoluteError MeanSquaredError PearsonCorrCoef R2Score SpearmanCorrCoef",
    "torchmetrics.text": "Perplexity",
}

USUAL_TARGETS = {name: f"{module}:{name}" for module, names in _NAMES.items() for name in names.split()}
"""By name: `AdamW` is `torch.optim:AdamW`."""
