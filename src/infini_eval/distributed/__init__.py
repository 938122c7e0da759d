"""Processes: launch, mesh, tensor parallel, work queue."""
