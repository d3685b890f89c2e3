"""From reads to a report on their coverage of a genome: one partition for each sample."""
