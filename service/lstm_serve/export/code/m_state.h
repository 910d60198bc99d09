
/* What is kept of one series: make as many as you like. */
typedef struct {
$fields
} m_state;

/* Begin a series. */
void m_reset(m_state *s);

/* Take one row of it. */
void m_step(m_state *s, const $c_type row[M_FEATURES]);

/* The answer to all rows since m_reset: to a window of the model, after as many as that has. */
void m_output(const m_state *s, float out[M_OUTPUTS]);
