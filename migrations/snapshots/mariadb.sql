-- shop

CREATE TABLE `claimed_payloads` (
  `id` char(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `payload` mediumtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `created_at` datetime(6) NOT NULL DEFAULT utc_timestamp(6),
  PRIMARY KEY (`id`),
  KEY `claimed_payloads_age` (`created_at`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `consumer_bindings` (
  `consumer` varchar(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `type` varchar(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL,
  `exchange` varchar(127) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL,
  `routing_key` varchar(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL,
  `unhandled_since` datetime(6) DEFAULT NULL,
  PRIMARY KEY (`consumer`,`type`,`exchange`,`routing_key`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `consumer_workers` (
  `consumer` varchar(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `worker` char(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `place` varchar(300) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `definition` mediumtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `refused` tinyint(3) unsigned NOT NULL,
  `started_at` datetime(6) NOT NULL DEFAULT utc_timestamp(6),
  `lease_until` datetime(6) NOT NULL,
  PRIMARY KEY (`consumer`,`worker`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `consumers` (
  `consumer` varchar(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `type` varchar(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL,
  `since` datetime(6) NOT NULL DEFAULT utc_timestamp(6),
  `replays` tinyint(1) NOT NULL DEFAULT 0,
  `ordered` tinyint(1) NOT NULL DEFAULT 0,
  PRIMARY KEY (`consumer`,`type`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `customers` (
  `id` char(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `email` varchar(254) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `email_key` varbinary(1016) GENERATED ALWAYS AS (lcase(`email`)) STORED,
  `name` varchar(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `version` int(10) unsigned NOT NULL DEFAULT 1,
  `created_at` datetime(6) NOT NULL DEFAULT utc_timestamp(6),
  `updated_at` datetime(6) NOT NULL DEFAULT utc_timestamp(6),
  PRIMARY KEY (`id`),
  UNIQUE KEY `customers_email` (`email_key`),
  CONSTRAINT `customers_version` CHECK (`version` >= 1),
  CONSTRAINT `customers_email_given` CHECK (char_length(`email`) > 0),
  CONSTRAINT `customers_name_given` CHECK (char_length(`name`) > 0)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `dead_letters` (
  `id` bigint(20) unsigned NOT NULL AUTO_INCREMENT,
  `consumer` varchar(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `message_id` varbinary(255) DEFAULT NULL,
  `type` varchar(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT NULL,
  `version` int(10) unsigned DEFAULT NULL,
  `routing_key` varchar(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `properties` mediumtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `body` longblob NOT NULL,
  `reason` varchar(500) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `error_class` varchar(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT NULL,
  `attempts` int(10) unsigned NOT NULL,
  `first_failed_at` datetime(6) DEFAULT NULL,
  `last_failed_at` datetime(6) DEFAULT NULL,
  `occurred_at` datetime(6) DEFAULT NULL,
  `state` enum('dead','replay','replayed','discarded') NOT NULL DEFAULT 'dead',
  `created_at` datetime(6) NOT NULL DEFAULT utc_timestamp(6),
  `updated_at` datetime(6) NOT NULL DEFAULT utc_timestamp(6),
  `copy_hash` binary(32) NOT NULL,
  PRIMARY KEY (`id`),
  UNIQUE KEY `dead_letters_copy` (`consumer`,`copy_hash`),
  KEY `dead_letters_state` (`state`,`consumer`,`id`),
  KEY `dead_letters_message` (`message_id`),
  KEY `dead_letters_handled` (`state`,`updated_at`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `event_streams` (
  `category` varchar(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `id` varchar(128) CHARACTER SET ascii COLLATE ascii_nopad_bin NOT NULL,
  `version` int(10) unsigned NOT NULL,
  PRIMARY KEY (`category`,`id`),
  CONSTRAINT `event_streams_version` CHECK (`version` >= 1)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `events` (
  `category` varchar(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `stream_id` varchar(128) CHARACTER SET ascii COLLATE ascii_nopad_bin NOT NULL,
  `version` int(10) unsigned NOT NULL,
  `type` varchar(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `data` mediumtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `lineage` text CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT NULL,
  `occurred_at` datetime(6) NOT NULL,
  PRIMARY KEY (`category`,`stream_id`,`version`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `held_keys` (
  `consumer` varchar(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `ordering_key` varbinary(1020) NOT NULL,
  `due_at` datetime(6) DEFAULT NULL,
  `attempts` int(10) unsigned NOT NULL DEFAULT 0,
  `begun` int(10) unsigned NOT NULL DEFAULT 0,
  `first_failed_at` datetime(6) DEFAULT NULL,
  `dead_letter` bigint(20) unsigned DEFAULT NULL,
  PRIMARY KEY (`consumer`,`ordering_key`),
  KEY `held_keys_due` (`consumer`,`due_at`),
  KEY `held_keys_dead` (`consumer`,`dead_letter`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `held_messages` (
  `seq` bigint(20) unsigned NOT NULL AUTO_INCREMENT,
  `consumer` varchar(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `ordering_key` varbinary(1020) NOT NULL,
  `message_id` varbinary(255) NOT NULL,
  `routing_key` varchar(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `properties` mediumtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `body` longblob NOT NULL,
  `created_at` datetime(6) NOT NULL DEFAULT utc_timestamp(6),
  PRIMARY KEY (`seq`),
  UNIQUE KEY `held_messages_message` (`consumer`,`message_id`),
  KEY `held_messages_key` (`consumer`,`ordering_key`,`seq`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `idempotency_keys` (
  `idempotency_key` varbinary(255) NOT NULL,
  `request_hash` binary(32) NOT NULL,
  `status` smallint(5) unsigned NOT NULL,
  `response_headers` text CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `response_body` mediumtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `created_at` datetime(6) NOT NULL DEFAULT utc_timestamp(6),
  PRIMARY KEY (`idempotency_key`),
  KEY `idempotency_keys_age` (`created_at`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `orders` (
  `id` char(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `customer_id` char(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `status` enum('placed','confirmed','rejected') NOT NULL,
  `reason` varchar(64) CHARACTER SET ascii COLLATE ascii_bin DEFAULT NULL,
  `process` enum('choreography','orchestration') NOT NULL,
  `total_amount` bigint(20) unsigned NOT NULL,
  `version` int(10) unsigned NOT NULL,
  `placed_at` datetime(6) NOT NULL,
  `updated_at` datetime(6) NOT NULL,
  PRIMARY KEY (`id`),
  KEY `orders_customer` (`customer_id`),
  KEY `orders_status` (`status`,`updated_at`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `outbox` (
  `seq` bigint(20) unsigned NOT NULL AUTO_INCREMENT,
  `id` char(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `aggregatetype` varchar(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `aggregateid` varchar(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `type` varchar(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `version` smallint(5) unsigned NOT NULL DEFAULT 1,
  `payload` mediumtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `headers` text CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT NULL,
  `exchange` varchar(127) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL DEFAULT 'oncebox.events',
  `routing_key` varchar(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT NULL,
  `delivery` enum('required','optional') NOT NULL DEFAULT 'required',
  `when_parked` enum('hold','continue') NOT NULL DEFAULT 'hold',
  `partition_id` tinyint(3) unsigned GENERATED ALWAYS AS (crc32(`aggregateid`) MOD 16) STORED,
  `state` enum('pending','published','parked') NOT NULL DEFAULT 'pending',
  `held` tinyint(3) unsigned NOT NULL DEFAULT 0,
  `attempts` int(10) unsigned NOT NULL DEFAULT 0,
  `last_error` varchar(500) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT NULL,
  `available_at` datetime(6) NOT NULL DEFAULT utc_timestamp(6),
  `created_at` datetime(6) NOT NULL DEFAULT utc_timestamp(6),
  `published_at` datetime(6) DEFAULT NULL,
  PRIMARY KEY (`seq`),
  UNIQUE KEY `outbox_id` (`id`),
  KEY `outbox_work` (`state`,`held`,`partition_id`,`seq`),
  CONSTRAINT `outbox_held` CHECK (`held` in (0,1)),
  CONSTRAINT `outbox_published` CHECK (`state` <> 'published' or `published_at` is not null)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `outbox_partition` (
  `partition_id` tinyint(3) unsigned NOT NULL,
  `forgotten_before` datetime(6) DEFAULT NULL,
  PRIMARY KEY (`partition_id`),
  CONSTRAINT `outbox_partition_id` CHECK (`partition_id` < 16)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `outbox_waiting` (
  `seq` bigint(20) unsigned NOT NULL,
  `partition_id` tinyint(3) unsigned NOT NULL,
  `aggregatetype` varchar(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL,
  `aggregateid` varchar(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL,
  `due_at` datetime(6) DEFAULT NULL,
  PRIMARY KEY (`seq`),
  KEY `outbox_waiting_due` (`partition_id`,`due_at`),
  KEY `outbox_waiting_key` (`aggregateid`,`aggregatetype`,`seq`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `processed_messages` (
  `consumer` varchar(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `message_id` varbinary(255) NOT NULL,
  `processed_at` datetime(6) NOT NULL DEFAULT utc_timestamp(6),
  PRIMARY KEY (`consumer`,`message_id`),
  KEY `processed_messages_age` (`processed_at`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `products` (
  `sku` varchar(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `name` varchar(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `price` int(10) unsigned NOT NULL,
  PRIMARY KEY (`sku`),
  CONSTRAINT `products_price` CHECK (`price` <= 100000000)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `projection_rebuilds` (
  `name` varchar(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `after_id` varchar(128) CHARACTER SET ascii COLLATE ascii_nopad_bin NOT NULL DEFAULT '',
  `done` int(10) unsigned NOT NULL DEFAULT 0,
  `total` int(10) unsigned NOT NULL,
  `removed` int(10) unsigned NOT NULL DEFAULT 0,
  `started_at` datetime(6) NOT NULL DEFAULT utc_timestamp(6),
  `finished_at` datetime(6) DEFAULT NULL,
  PRIMARY KEY (`name`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `retention` (
  `name` varchar(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `forgotten_before` datetime(6) DEFAULT NULL,
  PRIMARY KEY (`name`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `schema_migrations` (
  `set_name` varchar(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `name` varchar(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `checksum` char(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `begun` int(10) unsigned NOT NULL,
  `completed` int(10) unsigned NOT NULL,
  `applied_at` datetime(6) DEFAULT NULL,
  PRIMARY KEY (`set_name`,`name`),
  CONSTRAINT `schema_migrations_order` CHECK (`completed` <= `begun`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `service_identity` (
  `id` char(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  PRIMARY KEY (`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `snapshots` (
  `category` varchar(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `stream_id` varchar(128) CHARACTER SET ascii COLLATE ascii_nopad_bin NOT NULL,
  `shape` int(10) unsigned NOT NULL,
  `version` int(10) unsigned NOT NULL,
  `state` mediumtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  PRIMARY KEY (`category`,`stream_id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

-- fulfilment

CREATE TABLE `claimed_payloads` (
  `id` char(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `payload` mediumtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `created_at` datetime(6) NOT NULL DEFAULT utc_timestamp(6),
  PRIMARY KEY (`id`),
  KEY `claimed_payloads_age` (`created_at`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `consumer_bindings` (
  `consumer` varchar(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `type` varchar(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL,
  `exchange` varchar(127) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL,
  `routing_key` varchar(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL,
  `unhandled_since` datetime(6) DEFAULT NULL,
  PRIMARY KEY (`consumer`,`type`,`exchange`,`routing_key`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `consumer_workers` (
  `consumer` varchar(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `worker` char(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `place` varchar(300) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `definition` mediumtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `refused` tinyint(3) unsigned NOT NULL,
  `started_at` datetime(6) NOT NULL DEFAULT utc_timestamp(6),
  `lease_until` datetime(6) NOT NULL,
  PRIMARY KEY (`consumer`,`worker`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `consumers` (
  `consumer` varchar(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `type` varchar(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL,
  `since` datetime(6) NOT NULL DEFAULT utc_timestamp(6),
  `replays` tinyint(1) NOT NULL DEFAULT 0,
  `ordered` tinyint(1) NOT NULL DEFAULT 0,
  PRIMARY KEY (`consumer`,`type`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `customer_directory` (
  `customer_id` char(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `name` varchar(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `email` varchar(254) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `version` int(10) unsigned NOT NULL,
  `updated_at` datetime(6) NOT NULL DEFAULT utc_timestamp(6),
  PRIMARY KEY (`customer_id`),
  CONSTRAINT `customer_directory_version` CHECK (`version` >= 1)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `dead_letters` (
  `id` bigint(20) unsigned NOT NULL AUTO_INCREMENT,
  `consumer` varchar(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `message_id` varbinary(255) DEFAULT NULL,
  `type` varchar(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT NULL,
  `version` int(10) unsigned DEFAULT NULL,
  `routing_key` varchar(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `properties` mediumtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `body` longblob NOT NULL,
  `reason` varchar(500) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `error_class` varchar(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT NULL,
  `attempts` int(10) unsigned NOT NULL,
  `first_failed_at` datetime(6) DEFAULT NULL,
  `last_failed_at` datetime(6) DEFAULT NULL,
  `occurred_at` datetime(6) DEFAULT NULL,
  `state` enum('dead','replay','replayed','discarded') NOT NULL DEFAULT 'dead',
  `created_at` datetime(6) NOT NULL DEFAULT utc_timestamp(6),
  `updated_at` datetime(6) NOT NULL DEFAULT utc_timestamp(6),
  `copy_hash` binary(32) NOT NULL,
  PRIMARY KEY (`id`),
  UNIQUE KEY `dead_letters_copy` (`consumer`,`copy_hash`),
  KEY `dead_letters_state` (`state`,`consumer`,`id`),
  KEY `dead_letters_message` (`message_id`),
  KEY `dead_letters_handled` (`state`,`updated_at`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `emails` (
  `id` bigint(20) unsigned NOT NULL AUTO_INCREMENT,
  `message_id` varchar(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL,
  `customer_id` char(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `recipient` varchar(254) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `subject` varchar(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `body` text CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `created_at` datetime(6) NOT NULL DEFAULT utc_timestamp(6),
  PRIMARY KEY (`id`),
  KEY `emails_message` (`message_id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `gateway_operations` (
  `idempotency_key` varchar(255) CHARACTER SET ascii COLLATE ascii_nopad_bin NOT NULL,
  `kind` enum('charge','refund') NOT NULL,
  `amount` bigint(20) unsigned NOT NULL,
  `outcome` enum('charged','declined','refunded') NOT NULL,
  `created_at` datetime(6) NOT NULL DEFAULT utc_timestamp(6),
  PRIMARY KEY (`idempotency_key`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `held_keys` (
  `consumer` varchar(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `ordering_key` varbinary(1020) NOT NULL,
  `due_at` datetime(6) DEFAULT NULL,
  `attempts` int(10) unsigned NOT NULL DEFAULT 0,
  `begun` int(10) unsigned NOT NULL DEFAULT 0,
  `first_failed_at` datetime(6) DEFAULT NULL,
  `dead_letter` bigint(20) unsigned DEFAULT NULL,
  PRIMARY KEY (`consumer`,`ordering_key`),
  KEY `held_keys_due` (`consumer`,`due_at`),
  KEY `held_keys_dead` (`consumer`,`dead_letter`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `held_messages` (
  `seq` bigint(20) unsigned NOT NULL AUTO_INCREMENT,
  `consumer` varchar(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `ordering_key` varbinary(1020) NOT NULL,
  `message_id` varbinary(255) NOT NULL,
  `routing_key` varchar(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `properties` mediumtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `body` longblob NOT NULL,
  `created_at` datetime(6) NOT NULL DEFAULT utc_timestamp(6),
  PRIMARY KEY (`seq`),
  UNIQUE KEY `held_messages_message` (`consumer`,`message_id`),
  KEY `held_messages_key` (`consumer`,`ordering_key`,`seq`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `outbox` (
  `seq` bigint(20) unsigned NOT NULL AUTO_INCREMENT,
  `id` char(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `aggregatetype` varchar(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `aggregateid` varchar(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `type` varchar(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `version` smallint(5) unsigned NOT NULL DEFAULT 1,
  `payload` mediumtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `headers` text CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT NULL,
  `exchange` varchar(127) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL DEFAULT 'oncebox.events',
  `routing_key` varchar(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT NULL,
  `delivery` enum('required','optional') NOT NULL DEFAULT 'required',
  `when_parked` enum('hold','continue') NOT NULL DEFAULT 'hold',
  `partition_id` tinyint(3) unsigned GENERATED ALWAYS AS (crc32(`aggregateid`) MOD 16) STORED,
  `state` enum('pending','published','parked') NOT NULL DEFAULT 'pending',
  `held` tinyint(3) unsigned NOT NULL DEFAULT 0,
  `attempts` int(10) unsigned NOT NULL DEFAULT 0,
  `last_error` varchar(500) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT NULL,
  `available_at` datetime(6) NOT NULL DEFAULT utc_timestamp(6),
  `created_at` datetime(6) NOT NULL DEFAULT utc_timestamp(6),
  `published_at` datetime(6) DEFAULT NULL,
  PRIMARY KEY (`seq`),
  UNIQUE KEY `outbox_id` (`id`),
  KEY `outbox_work` (`state`,`held`,`partition_id`,`seq`),
  CONSTRAINT `outbox_held` CHECK (`held` in (0,1)),
  CONSTRAINT `outbox_published` CHECK (`state` <> 'published' or `published_at` is not null)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `outbox_partition` (
  `partition_id` tinyint(3) unsigned NOT NULL,
  `forgotten_before` datetime(6) DEFAULT NULL,
  PRIMARY KEY (`partition_id`),
  CONSTRAINT `outbox_partition_id` CHECK (`partition_id` < 16)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `outbox_waiting` (
  `seq` bigint(20) unsigned NOT NULL,
  `partition_id` tinyint(3) unsigned NOT NULL,
  `aggregatetype` varchar(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL,
  `aggregateid` varchar(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL,
  `due_at` datetime(6) DEFAULT NULL,
  PRIMARY KEY (`seq`),
  KEY `outbox_waiting_due` (`partition_id`,`due_at`),
  KEY `outbox_waiting_key` (`aggregateid`,`aggregatetype`,`seq`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `payments` (
  `order_id` char(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `amount` bigint(20) unsigned NOT NULL,
  `status` enum('processed','declined','refunded') NOT NULL,
  `created_at` datetime(6) NOT NULL DEFAULT utc_timestamp(6),
  `updated_at` datetime(6) NOT NULL DEFAULT utc_timestamp(6),
  PRIMARY KEY (`order_id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `processed_messages` (
  `consumer` varchar(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `message_id` varbinary(255) NOT NULL,
  `processed_at` datetime(6) NOT NULL DEFAULT utc_timestamp(6),
  PRIMARY KEY (`consumer`,`message_id`),
  KEY `processed_messages_age` (`processed_at`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `reservations` (
  `order_id` char(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `state` enum('reserved','refused','released') NOT NULL,
  `created_at` datetime(6) NOT NULL DEFAULT utc_timestamp(6),
  `updated_at` datetime(6) NOT NULL DEFAULT utc_timestamp(6),
  PRIMARY KEY (`order_id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `reserved_items` (
  `order_id` char(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `sku` varchar(64) CHARACTER SET ascii COLLATE ascii_nopad_bin NOT NULL,
  `quantity` int(10) unsigned NOT NULL,
  PRIMARY KEY (`order_id`,`sku`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `retention` (
  `name` varchar(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `forgotten_before` datetime(6) DEFAULT NULL,
  PRIMARY KEY (`name`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `saga_history` (
  `seq` bigint(20) unsigned NOT NULL AUTO_INCREMENT,
  `name` varchar(100) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `id` varchar(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL,
  `happened` varchar(500) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `created_at` datetime(6) NOT NULL DEFAULT utc_timestamp(6),
  PRIMARY KEY (`seq`),
  KEY `saga_history_saga` (`name`,`id`,`seq`),
  CONSTRAINT `saga_history_of` FOREIGN KEY (`name`, `id`) REFERENCES `sagas` (`name`, `id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `sagas` (
  `name` varchar(100) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `id` varchar(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL,
  `data` mediumtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `lineage` text CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  `state` enum('running','stuck','completed','compensated') NOT NULL,
  `direction` enum('forward','back') NOT NULL,
  `step` varchar(100) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `attempts` int(10) unsigned NOT NULL,
  `reason` varchar(100) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT NULL,
  `problem` varchar(500) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT NULL,
  `due_at` datetime(6) DEFAULT NULL,
  `created_at` datetime(6) NOT NULL DEFAULT utc_timestamp(6),
  `updated_at` datetime(6) NOT NULL DEFAULT utc_timestamp(6),
  `ended_at` datetime(6) DEFAULT NULL,
  PRIMARY KEY (`name`,`id`),
  KEY `sagas_due` (`due_at`),
  KEY `sagas_state` (`state`,`updated_at`),
  KEY `sagas_ended` (`ended_at`),
  CONSTRAINT `sagas_problem` CHECK (`state` = 'stuck' = (`problem` is not null)),
  CONSTRAINT `sagas_end` CHECK (`state` in ('completed','compensated') = (`ended_at` is not null)),
  CONSTRAINT `sagas_wait` CHECK (`state` = 'running' = (`due_at` is not null))
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `sales` (
  `sku` varchar(64) CHARACTER SET ascii COLLATE ascii_nopad_bin NOT NULL,
  `orders` bigint(20) unsigned NOT NULL,
  `quantity` bigint(20) unsigned NOT NULL,
  `amount` bigint(20) unsigned NOT NULL,
  `updated_at` datetime(6) NOT NULL DEFAULT utc_timestamp(6),
  PRIMARY KEY (`sku`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `schema_migrations` (
  `set_name` varchar(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `name` varchar(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `checksum` char(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  `begun` int(10) unsigned NOT NULL,
  `completed` int(10) unsigned NOT NULL,
  `applied_at` datetime(6) DEFAULT NULL,
  PRIMARY KEY (`set_name`,`name`),
  CONSTRAINT `schema_migrations_order` CHECK (`completed` <= `begun`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `service_identity` (
  `id` char(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  PRIMARY KEY (`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `stock` (
  `sku` varchar(64) CHARACTER SET ascii COLLATE ascii_nopad_bin NOT NULL,
  `available` int(10) unsigned NOT NULL,
  `reserved` int(10) unsigned NOT NULL DEFAULT 0,
  PRIMARY KEY (`sku`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;
