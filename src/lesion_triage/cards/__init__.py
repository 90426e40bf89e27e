"""Documents of a finished run: model card, dataset card, reporting checklists and the record of a change.

Imports the bundle, config, data, runs and the exception tree; reads files, trains nothing.
"""
