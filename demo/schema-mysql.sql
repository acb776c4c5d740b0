-- The demo's MariaDB (or MySQL) database: a lodging marketplace's bookings.
CREATE DATABASE booking CHARACTER SET utf8mb4;
USE booking;

CREATE TABLE reservations (
    id            BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
    code          CHAR(10) NOT NULL,
    guest_name    VARCHAR(80) NOT NULL,
    guest_phone   VARCHAR(20) CHARACTER SET latin1,
    property_name VARCHAR(120) NOT NULL,
    region        VARCHAR(20) NOT NULL,
    status        ENUM('pending', 'confirmed', 'checked_in', 'checked_out', 'cancelled') NOT NULL,
    services      SET('breakfast', 'parking', 'late_checkout', 'pet') NOT NULL DEFAULT '',
    channel       TINYINT NOT NULL,
    adults        TINYINT UNSIGNED NOT NULL,
    check_in      DATE NOT NULL,
    check_out     DATE NOT NULL,
    arrival_time  TIME,
    amount        DECIMAL(12, 2) NOT NULL,
    is_paid       BIT(1) NOT NULL DEFAULT b'0',
    rating        FLOAT,
    request       TEXT,
    details       JSON,
    created_at    DATETIME(6) NOT NULL,
    updated_at    TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3),
    PRIMARY KEY (id),
    UNIQUE KEY (code)
);

CREATE TABLE coupons (
    id             INT UNSIGNED NOT NULL AUTO_INCREMENT,
    serial         BINARY(16) NOT NULL,
    title          VARCHAR(60) NOT NULL,
    kind           ENUM('percent', 'amount', 'free_night') NOT NULL,
    discount       DECIMAL(10, 2) NOT NULL,
    minimum_amount MEDIUMINT UNSIGNED NOT NULL DEFAULT 0,
    issue_year     YEAR NOT NULL,
    valid_until    DATETIME,
    is_used        TINYINT(1) NOT NULL DEFAULT 0,
    reservation_id BIGINT UNSIGNED,
    used_at        DATETIME(3),
    PRIMARY KEY (id),
    UNIQUE KEY (serial)
);
