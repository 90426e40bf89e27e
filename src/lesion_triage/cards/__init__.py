"""What a finished run can say of itself: model card, dataset card, checklists and the record of a change.

Imports the bundle, config, data, runs and the exception tree; reads files, trains nothing.
"""
