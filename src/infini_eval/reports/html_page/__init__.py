"""The parts of report.html: escaping, tables, sample cards and the style sheet."""
