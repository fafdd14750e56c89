//! Rules over templates: findings with evidence.
