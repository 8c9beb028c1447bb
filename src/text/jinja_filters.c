/* jinja_filters.c: filters of lists: choosing, ordering, grouping. jinja_filters_2.c has those of
 * single values, jinja_filters_text.c those of strings.
 *
 * Jinja's generators (map, select, unique ...) are made at once here and walked once, like theirs.
 */
#include "base/bits.h"
#include "text/jinja_impl.h"

static const jvalue missing = {.type = J_MISSING};

static bool is_given(jvalue v) { return v.type != J_MISSING && v.type != J_NONE; }

/* ---- map, select, reject ---- */

static bool map_attribute(jrun *r, const jlist *in, const jargs *args, jlist *made) {
    jvalue a[2];
    if (!jargs_bind(r, "map", args, "attribute! default", a)) return false;
    for (size_t i = 0; i < in->count; i++) {
        jvalue v;
        if (!jget_path(r, in->items[i], a[0], a[1], &v) || !jlist_push(r, made, v)) return false;
        if (!jrun_charge(r, 1)) return false;
    }
    return true;
}

static bool map_filter(jrun *r, const jlist *in, const jargs *args, jlist *made) {
    if (args->n < 1) return JFAIL(r, "map requires a filter argument");
    if (args->pos[0].type != J_TEXT) return JFAIL(r, "map: the name of a filter is no string");
    const jtext *name = args->pos[0].text;
    jfunction fn = jfind_filter(name);
    if (!fn) {
        return jrun_fail(r, ERR_UNSUPPORTED, "unknown filter '%.*s'",
                         (int)size_min(name->length, 60), name->bytes);
    }
    jargs rest = *args;
    rest.pos++;
    rest.n--;
    for (size_t i = 0; i < in->count; i++) {
        jvalue v;
        if (!jrun_charge(r, 1) || !fn(r, in->items[i], &rest, &v)) return false;
        if (!jlist_push(r, made, v)) return false;
    }
    return true;
}

/* A generator of Jinja's makes its items, and its errors, when it is walked. So what goes wrong
 * here is kept for whoever gets that far; limits are not. */
typedef bool (*filler)(jrun *r, jvalue self, const void *how, jlist *made);

static bool generate(jrun *r, jvalue self, filler fill, const void *how, jvalue *out) {
    jlist *made = jlist_new(r, 0);
    if (!made || !jiter_new(r, made, "generator", out)) return false;
    int depth = r->depth;
    if (fill(r, self, how, made)) return true;
    if (r->error.code == ERR_RANGE || r->error.code == ERR_NOMEM) return false;
    jiter *it = out->iter;
    if (!(it->failure = jpool_alloc(&r->pool, sizeof *it->failure))) return false;
    *it->failure = r->error;
    r->error = err_none();
    r->depth = depth;
    return true;
}

static bool fill_map(jrun *r, jvalue self, const void *how, jlist *made) {
    const jargs *args = how;
    jlist *in;
    if (!jtruth(self)) return true;
    if (!jiterate(r, self, &in) || !jrun_enter(r)) return false;
    bool attribute = false;
    for (int i = 0; args->n == 0 && i < args->n_kw; i++) {
        attribute = attribute || jtext_is(args->kw[i].name, "attribute");
    }
    bool good = attribute ? map_attribute(r, in, args, made) : map_filter(r, in, args, made);
    jrun_leave(r);
    return good;
}

static bool filter_map(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    return generate(r, self, fill_map, args, out);
}

/* How select and its relatives differ. */
typedef struct choice {
    const char *name;
    bool by_attribute, keep;
    const jargs *args;
} choice;

static bool fill_choice(jrun *r, jvalue self, const void *how, jlist *made) {
    const choice c = *(const choice *)how;
    jlist *in;
    if (!jtruth(self)) return true;
    if (!jiterate(r, self, &in)) return false;
    jargs rest = *c.args;
    jvalue path = missing;
    if (c.by_attribute) {
        if (!rest.n) return JFAIL(r, "%s: missing parameter for attribute name", c.name);
        path = rest.pos[0];
        rest.pos++;
        rest.n--;
    }
    jfunction test = NULL;
    if (rest.n) {
        if (rest.pos[0].type != J_TEXT) return JFAIL(r, "%s: a test's name is no string", c.name);
        test = jfind(jinja_tests, rest.pos[0].text);
        if (!test) {
            return jrun_fail(r, ERR_UNSUPPORTED, "unknown test '%.*s'",
                             (int)size_min(rest.pos[0].text->length, 60), rest.pos[0].text->bytes);
        }
        rest.pos++;
        rest.n--;
    }
    for (size_t i = 0; i < in->count; i++) {
        jvalue v, yes;
        if (!jrun_charge(r, 1) || !jget_path(r, in->items[i], path, missing, &v)) return false;
        yes = v;
        if (test && !test(r, v, &rest, &yes)) return false;
        if (jtruth(yes) == c.keep && !jlist_push(r, made, in->items[i])) return false;
    }
    return true;
}

static bool filter_select(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    return generate(r, self, fill_choice, &(choice){"select", false, true, args}, out);
}

static bool filter_reject(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    return generate(r, self, fill_choice, &(choice){"reject", false, false, args}, out);
}

static bool filter_selectattr(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    return generate(r, self, fill_choice, &(choice){"selectattr", true, true, args}, out);
}

static bool filter_rejectattr(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    return generate(r, self, fill_choice, &(choice){"rejectattr", true, false, args}, out);
}

/* ---- order ---- */

typedef struct keyed {
    jvalue key, value;
} keyed;

/* Stable merge sort; reverse keeps the order of equal ones, as Python's sorted does. */
static bool sort_keyed(jrun *r, keyed *a, size_t n, bool reverse) {
    keyed *room = jrun_alloc(r, n, sizeof *room);
    if (!room) return false;
    for (size_t width = 1; width < n; width *= 2) {
        if (!jrun_charge(r, n)) return false;
        for (size_t low = 0; low < n; low += 2 * width) {
            size_t mid = size_min(low + width, n), high = size_min(low + 2 * width, n);
            size_t i = low, k = mid;
            for (size_t to = low; to < high; to++) {
                int c = -1;
                if (i < mid && k < high) {
                    jvalue x = reverse ? a[i].key : a[k].key, y = reverse ? a[k].key : a[i].key;
                    if (!jcompare(r, x, y, "<", &c)) return false;
                }
                bool right = i >= mid || (k < high && c < 0);
                room[to] = right ? a[k++] : a[i++];
            }
        }
        memcpy(a, room, n * sizeof *a);
    }
    return true;
}

static bool ignore_case(jrun *r, jvalue *v) {
    if (v->type != J_TEXT) return true;
    v->text = jtext_lower(r, v->text);
    return v->text != NULL;
}

static bool key_of(jrun *r, jvalue item, jvalue path, bool sensitive, jvalue *out) {
    return jget_path(r, item, path, missing, out) && (sensitive || ignore_case(r, out));
}

/* "a,b": a key of several attributes; *out is a list, as with make_multi_attrgetter. */
static bool sort_key(jrun *r, jvalue item, jvalue path, bool sensitive, jvalue *out) {
    jlist *l = jlist_new(r, 1);
    if (!l) return false;
    *out = jfrom_list(l);
    if (path.type != J_TEXT) {
        jvalue v;
        return key_of(r, item, path, sensitive, &v) && jlist_push(r, l, v);
    }
    const jtext comma = {.bytes = ",", .length = 1};
    for (size_t at = 0; at <= path.text->length;) {
        size_t end = jtext_find(path.text, &comma, at);
        if (end == SIZE_MAX) end = path.text->length;
        jtext *one = jtext_slice(r, path.text, at, end);
        jvalue v;
        if (!one || !key_of(r, item, jstring(one), sensitive, &v) || !jlist_push(r, l, v)) {
            return false;
        }
        at = end + 1;
    }
    return true;
}

static bool filter_sort(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    jvalue a[3];
    jlist *in;
    if (!jargs_bind(r, "sort", args, "reverse case_sensitive attribute", a)) return false;
    if (!jiterate(r, self, &in)) return false;
    keyed *items = jrun_alloc(r, in->count, sizeof *items);
    jlist *made = jlist_new(r, in->count);
    if (!items || !made) return false;
    for (size_t i = 0; i < in->count; i++) {
        items[i].value = in->items[i];
        if (!sort_key(r, in->items[i], a[2], jtruth(a[1]), &items[i].key)) return false;
    }
    if (!sort_keyed(r, items, in->count, jtruth(a[0]))) return false;
    for (size_t i = 0; i < in->count; i++) made->items[made->count++] = items[i].value;
    *out = jfrom_list(made);
    return true;
}

static bool filter_dictsort(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    jvalue a[3];
    jlist *in;
    if (!jargs_bind(r, "dictsort", args, "case_sensitive by reverse", a)) return false;
    if (self.type != J_DICT) return JFAIL(r, "dictsort of a %s", jtype_name(self));
    bool value = a[1].type == J_TEXT && jtext_is(a[1].text, "value");
    if (a[1].type != J_MISSING && !value && !(a[1].type == J_TEXT && jtext_is(a[1].text, "key"))) {
        return JFAIL(r, "dictsort: sort by either \"key\" or \"value\"");
    }
    jview view = {self.dict, JVIEW_ITEMS};
    if (!jiterate(r, (jvalue){.type = J_VIEW, .view = &view}, &in)) return false;
    keyed *items = jrun_alloc(r, in->count, sizeof *items);
    if (!items) return false;
    for (size_t i = 0; i < in->count; i++) {
        items[i] = (keyed){in->items[i].list->items[value], in->items[i]};
        if (!jtruth(a[0]) && !ignore_case(r, &items[i].key)) return false;
    }
    if (!sort_keyed(r, items, in->count, jtruth(a[2]))) return false;
    for (size_t i = 0; i < in->count; i++) in->items[i] = items[i].value;
    *out = jfrom_list(in);
    return true;
}

static bool fill_unique(jrun *r, jvalue self, const void *how, jlist *made) {
    const jvalue *a = how;
    jlist *in;
    jdict *seen = jdict_new(r);
    if (!seen || !jiterate(r, self, &in)) return false;
    for (size_t i = 0; i < in->count; i++) {
        jvalue key, *found;
        if (!jrun_charge(r, 1) || !key_of(r, in->items[i], a[1], jtruth(a[0]), &key)) return false;
        if (!jdict_get(r, seen, key, &found)) return false;
        if (found) continue;
        if (!jdict_set(r, seen, key, jnone()) || !jlist_push(r, made, in->items[i])) return false;
    }
    return true;
}

static bool filter_unique(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    jvalue a[2];
    return jargs_bind(r, "unique", args, "case_sensitive attribute", a) &&
           generate(r, self, fill_unique, a, out);
}

static bool min_or_max(jrun *r, jvalue self, const jargs *args, bool max, jvalue *out) {
    jvalue a[2], best = missing, key;
    jlist *in;
    if (!jargs_bind(r, max ? "max" : "min", args, "case_sensitive attribute", a)) return false;
    if (!jiterate(r, self, &in)) return false;
    for (size_t i = 0; i < in->count; i++) {
        int c = 1;
        if (!jrun_charge(r, 1) || !key_of(r, in->items[i], a[1], jtruth(a[0]), &key)) return false;
        if (i && !(max ? jcompare(r, key, best, ">", &c) : jcompare(r, best, key, "<", &c))) {
            return false;
        }
        if (i && c <= 0) continue;
        best = key;
        *out = in->items[i];
    }
    if (in->count) return true;
    *out = jundefined(jtext_literal(r, "no aggregated item, the sequence was empty"));
    return out->text != NULL;
}

static bool filter_min(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    return min_or_max(r, self, args, false, out);
}

static bool filter_max(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    return min_or_max(r, self, args, true, out);
}

static bool push_group(jrun *r, jlist *groups, jvalue name, jlist *members) {
    jlist *pair = jlist_new(r, 2);
    if (!pair) return false;
    pair->group = true;
    return jlist_push(r, pair, name) && jlist_push(r, pair, jfrom_list(members)) &&
           jlist_push(r, groups, jfrom_tuple(pair));
}

static bool filter_groupby(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    jvalue a[3], last = missing;
    jlist *in, *groups = jlist_new(r, 0), *members = NULL;
    if (!jargs_bind(r, "groupby", args, "attribute! default case_sensitive", a)) return false;
    if (!groups || !jiterate(r, self, &in)) return false;
    keyed *items = jrun_alloc(r, in->count, sizeof *items);
    if (!items) return false;
    for (size_t i = 0; i < in->count; i++) {
        items[i].value = in->items[i];
        if (!jget_path(r, in->items[i], a[0], a[1], &items[i].key)) return false;
        if (!jtruth(a[2]) && !ignore_case(r, &items[i].key)) return false;
    }
    if (!sort_keyed(r, items, in->count, false)) return false;
    for (size_t i = 0; i < in->count; i++) {
        bool same = false;
        jvalue name;
        if (i && !jequal(r, items[i].key, last, &same)) return false;
        if (!same) {
            last = items[i].key;
            if (!(members = jlist_new(r, 0))) return false;
            if (!jget_path(r, items[i].value, a[0], a[1], &name)) return false;
            if (!push_group(r, groups, name, members)) return false;
        }
        if (!jlist_push(r, members, items[i].value)) return false;
    }
    *out = jfrom_list(groups);
    return true;
}

/* ---- parts ---- */

static bool fill_batch(jrun *r, jvalue self, const void *how, jlist *made) {
    const jvalue *a = how;
    jlist *in, *row = NULL;
    if (!jis_number(a[0])) return JFAIL(r, "batch wants a number, not %s", jtype_name(a[0]));
    if (!jiterate(r, self, &in)) return false;
    double size = jnumber(a[0]);
    for (size_t i = 0; i < in->count; i++) {
        if (!row || (double)row->count == size) {
            if (row && !jlist_push(r, made, jfrom_list(row))) return false;
            if (!(row = jlist_new(r, 0))) return false;
        }
        if (!jlist_push(r, row, in->items[i])) return false;
    }
    while (row && is_given(a[1]) && (double)row->count < size) {
        if (!jlist_push(r, row, a[1]) || !jrun_charge(r, 1)) return false;
    }
    return !row || jlist_push(r, made, jfrom_list(row));
}

static bool filter_batch(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    jvalue a[2];
    return jargs_bind(r, "batch", args, "linecount! fill_with", a) &&
           generate(r, self, fill_batch, a, out);
}

static bool fill_slice(jrun *r, jvalue self, const void *how, jlist *made) {
    const jvalue *a = how;
    jlist *in;
    if (!jis_integer(a[0])) return JFAIL(r, "slice wants a whole number, not %s", jtype_name(a[0]));
    if (!jiterate(r, self, &in)) return false;
    int64_t slices = jinteger(a[0]);
    if (slices == 0) return JFAIL(r, "slice by zero");
    if (slices < 0) return true;
    size_t each = in->count / (size_t)slices, longer = in->count % (size_t)slices, at = 0;
    for (size_t i = 0; i < (size_t)slices; i++) {
        jlist *part = jlist_new(r, 0);
        size_t n = each + (i < longer);
        if (!part || !jrun_charge(r, 1 + n)) return false;
        for (size_t k = 0; k < n; k++) {
            if (!jlist_push(r, part, in->items[at++])) return false;
        }
        if (is_given(a[1]) && i >= longer && !jlist_push(r, part, a[1])) return false;
        if (!jlist_push(r, made, jfrom_list(part))) return false;
    }
    return true;
}

static bool filter_slice(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    jvalue a[2];
    return jargs_bind(r, "slice", args, "slices! fill_with", a) &&
           generate(r, self, fill_slice, a, out);
}

static bool empty_of(jrun *r, const char *why, jvalue *out) {
    *out = jundefined(jtext_literal(r, why));
    return out->text != NULL;
}

static bool filter_first(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    jlist *in;
    if (!jargs_bind(r, "first", args, "", NULL)) return false;
    if (self.type == J_ITER && self.iter->at < self.iter->list->count) {
        *out = self.iter->list->items[self.iter->at++];
        return true;
    }
    if (!jiterate(r, self, &in)) return false;
    if (!in->count) return empty_of(r, "no first item, the sequence was empty", out);
    *out = in->items[0];
    return true;
}

static bool can_reverse(jvalue v) {
    return v.type == J_TEXT || jis_sequence(v) || v.type == J_DICT || v.type == J_VIEW ||
           v.type == J_RANGE || v.type == J_UNDEFINED;
}

static bool filter_last(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    jlist *in;
    if (!jargs_bind(r, "last", args, "", NULL)) return false;
    if (!can_reverse(self)) return JFAIL(r, "'%s' object is not reversible", jtype_name(self));
    if (!jiterate(r, self, &in)) return false;
    if (!in->count) return empty_of(r, "no last item, the sequence was empty", out);
    *out = in->items[in->count - 1];
    return true;
}

static bool filter_reverse(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    jlist *in;
    if (!jargs_bind(r, "reverse", args, "", NULL)) return false;
    if (self.type == J_TEXT) {
        const jvalue parts[3] = {jnone(), jnone(), jint(-1)};
        return jslice(r, self, parts, out);
    }
    if (!jiterate(r, self, &in)) return false;
    jlist *made = jlist_new(r, in->count);
    if (!made) return false;
    for (size_t i = in->count; i-- > 0;) made->items[made->count++] = in->items[i];
    if (can_reverse(self)) return jiter_new(r, made, "list_reverseiterator", out);
    *out = jfrom_list(made);
    return true;
}

static bool filter_list(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    jlist *in;
    if (!jargs_bind(r, "list", args, "", NULL) || !jiterate(r, self, &in)) return false;
    *out = jfrom_list(in);
    return true;
}

static bool filter_join(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    jvalue a[2];
    jlist *in;
    jbuf b = {0};
    if (!jargs_bind(r, "join", args, "d attribute", a) || !jiterate(r, self, &in)) return false;
    jtext *between = a[0].type == J_MISSING ? NULL : jstr(r, a[0]);
    if (a[0].type != J_MISSING && !between) return false;
    for (size_t i = 0; i < in->count; i++) {
        jvalue v;
        if (!jrun_charge(r, 1) || !jget_path(r, in->items[i], a[1], missing, &v)) return false;
        jtext *t = jstr(r, v);
        if (!t || (i && between && !jbuf_add_text(r, &b, between))) return false;
        if (!jbuf_add_text(r, &b, t)) return false;
    }
    jtext *made = jbuf_text(r, &b);
    if (made) *out = jstring(made);
    return made != NULL;
}

static bool filter_sum(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    jvalue a[2];
    jlist *in;
    if (!jargs_bind(r, "sum", args, "attribute start", a) || !jiterate(r, self, &in)) return false;
    *out = a[1].type == J_MISSING ? jint(0) : a[1];
    if (out->type == J_TEXT) return JFAIL(r, "sum() can't sum strings");
    for (size_t i = 0; i < in->count; i++) {
        jvalue v;
        if (!jrun_charge(r, 1) || !jget_path(r, in->items[i], a[0], missing, &v)) return false;
        if (!jbinary(r, OP_ADD, *out, v, out)) return false;
    }
    return true;
}

static bool fill_items(jrun *r, jvalue self, const void *how, jlist *made) {
    (void)how;
    jlist *in;
    if (self.type == J_UNDEFINED) return true;
    if (self.type != J_DICT) return JFAIL(r, "can only get item pairs from a mapping");
    jview view = {self.dict, JVIEW_ITEMS};
    if (!jiterate(r, (jvalue){.type = J_VIEW, .view = &view}, &in)) return false;
    *made = *in;
    return true;
}

static bool filter_items(jrun *r, jvalue self, const jargs *args, jvalue *out) {
    return jargs_bind(r, "items", args, "", NULL) && generate(r, self, fill_items, NULL, out);
}

const jnamed jinja_filters[] = {
    {"items", filter_items},
    {"join", filter_join},
    {"map", filter_map},
    {"select", filter_select},
    {"reject", filter_reject},
    {"selectattr", filter_selectattr},
    {"rejectattr", filter_rejectattr},
    {"first", filter_first},
    {"last", filter_last},
    {"list", filter_list},
    {"reverse", filter_reverse},
    {"sort", filter_sort},
    {"dictsort", filter_dictsort},
    {"unique", filter_unique},
    {"min", filter_min},
    {"max", filter_max},
    {"groupby", filter_groupby},
    {"batch", filter_batch},
    {"slice", filter_slice},
    {"sum", filter_sum},
    {NULL, NULL},
};
