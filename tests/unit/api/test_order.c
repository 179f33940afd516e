/* Lines and outcomes come in the order of the cases. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "api/order.h"

static char heard[512];

static void on_log(void *user_data, vxm_log_level level, size_t number, const char *text) {
    (void)user_data;
    snprintf(heard + strlen(heard), sizeof heard - strlen(heard), "%zu%c%s ", number,
             level == VXM_LOG_WARNING ? '!' : ':', text);
}

static void on_case(void *user_data, const vxm_case *c) {
    (void)user_data;
    snprintf(heard + strlen(heard), sizeof heard - strlen(heard), "%zu. ", c->number);
}

/* Cases of numbers 2, 4, 6, 8. */
static vx_order open_order(void) {
    static const vxm_case cases[4] = {{.number = 2}, {.number = 4}, {.number = 6}, {.number = 8}};
    vx_order order;
    heard[0] = '\0';
    assert_int_equal(vx_order_create(cases, 4, &order, NULL), VXM_OK);
    order.log = on_log;
    order.on_case = on_case;
    return order;
}

static void later_cases_wait(void **state) {
    (void)state;
    vx_order order = open_order();
    vx_order_say(&order, 0, VXM_LOG_INFO, "a");
    vx_order_say(&order, 2, VXM_LOG_INFO, "x");
    vx_order_say(&order, 2, VXM_LOG_WARNING, "y");
    vx_order_end(&order, 2);
    vx_order_say(&order, 1, VXM_LOG_INFO, "m");
    assert_string_equal(heard, "2:a ");
    vx_order_say(&order, 0, VXM_LOG_WARNING, "b");
    vx_order_end(&order, 0);
    assert_string_equal(heard, "2:a 2!b 2. 4:m ");
    vx_order_say(&order, 1, VXM_LOG_INFO, "n"); /* its turn now: at once */
    assert_string_equal(heard, "2:a 2!b 2. 4:m 4:n ");
    vx_order_end(&order, 1);
    vx_order_end(&order, 3);
    assert_string_equal(heard, "2:a 2!b 2. 4:m 4:n 4. 6:x 6!y 6. 8. ");
    vx_order_free(&order);
    assert_string_equal(heard, "2:a 2!b 2. 4:m 4:n 4. 6:x 6!y 6. 8. ");
}

static void a_stopped_run_says_what_is_left(void **state) {
    (void)state;
    vx_order order = open_order();
    vx_order_say(&order, 3, VXM_LOG_INFO, "z");
    vx_order_say(&order, 1, VXM_LOG_INFO, "m");
    vx_order_end(&order, 3);
    assert_string_equal(heard, "");
    vx_order_free(&order);
    assert_string_equal(heard, "4:m 8:z 8. ");
}

static void nobody_listens(void **state) {
    (void)state;
    vx_order order = open_order();
    order.log = NULL;
    order.on_case = NULL;
    vx_order_say(&order, 1, VXM_LOG_INFO, "m");
    for (size_t i = 0; i < 4; i++) vx_order_end(&order, i);
    vx_order_free(&order);
    assert_string_equal(heard, "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(later_cases_wait),
        cmocka_unit_test(a_stopped_run_says_what_is_left),
        cmocka_unit_test(nobody_listens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
