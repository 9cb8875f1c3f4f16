"""Rules to compare with: published aggregators and samplers beside ours, behind one interface."""
