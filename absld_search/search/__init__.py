"""What happens around trainings: ask, schedule, remember, compare, mirror."""
