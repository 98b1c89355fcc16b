import Yams

/// One key of the configuration file: its name, and how its value gets into the
/// configuration. The table `Setting.all` is the whole syntax.
struct Setting: Sendable {
  /// `gateway.listen`.
  let key: String
  /// Puts the value in, or says what it should be.
  let apply: @Sendable (inout CarrelConfiguration, Node) -> String?

  typealias Path<Value> = WritableKeyPath<CarrelConfiguration, Value> & Sendable

  static func text(_ key: String, _ path: Path<String>, empty: Bool = true) -> Setting {
    Setting(key: key) { configuration, node in
      // An empty value in YAML is null.
      guard let scalar = node.scalar else { return "a text" }
      let value = scalar.string
      guard empty || !value.isEmpty else { return "a text that is not empty" }
      configuration[keyPath: path] = value
      return nil
    }
  }

  static func directory(_ key: String, _ path: Path<String>) -> Setting {
    Setting(key: key) { configuration, node in
      guard let value = node.scalar?.string, value.isEmpty || value.hasPrefix("/") else {
        return "an absolute path, or empty for the usual place"
      }
      configuration[keyPath: path] = value
      return nil
    }
  }

  static func integer(
    _ key: String, _ range: ClosedRange<Int>, _ path: Path<Int>
  ) -> Setting {
    Setting(key: key) { configuration, node in
      guard let value = node.int, range.contains(value) else {
        return "a number from \(range.lowerBound) to \(range.upperBound)"
      }
      configuration[keyPath: path] = value
      return nil
    }
  }

  static func decimal(
    _ key: String, _ range: ClosedRange<Double>, _ path: Path<Double>
  ) -> Setting {
    Setting(key: key) { configuration, node in
      guard let value = node.float, range.contains(value) else {
        return "a number such as 1.5, from \(range.lowerBound) to \(range.upperBound)"
      }
      configuration[keyPath: path] = value
      return nil
    }
  }

  static func flag(_ key: String, _ path: Path<Bool>) -> Setting {
    Setting(key: key) { configuration, node in
      guard let value = node.bool else { return "true or false" }
      configuration[keyPath: path] = value
      return nil
    }
  }

  static func choice(_ key: String, _ choices: [String], _ path: Path<String>) -> Setting {
    Setting(key: key) { configuration, node in
      guard let value = node.scalar?.string, choices.contains(value) else {
        return "one of \(choices.joined(separator: ", "))"
      }
      configuration[keyPath: path] = value
      return nil
    }
  }

  static func endpoints(
    _ key: String, _ path: Path<[CarrelConfiguration.Endpoint]>
  ) -> Setting {
    Setting(key: key) { configuration, node in
      let wanted = "a list of addresses such as [\"0.0.0.0:5900\", \"[::1]:5900\"]"
      guard let nodes = node.sequence else { return wanted }
      var endpoints: [CarrelConfiguration.Endpoint] = []
      for node in nodes {
        guard let text = node.scalar?.string, let endpoint = CarrelConfiguration.Endpoint(text)
        else { return wanted }
        endpoints.append(endpoint)
      }
      configuration[keyPath: path] = endpoints
      return nil
    }
  }

  static let all: [Setting] = [
    .directory("state_directory", \.stateDirectory),
    .directory("runtime_directory", \.runtimeDirectory),
    .endpoints("gateway.listen", \.gateway.listen),
    .endpoints("gateway.web", \.gateway.web),
    .flag("gateway.web_tls", \.gateway.webTLS),
    .directory("gateway.certificate", \.gateway.certificate),
    .directory("gateway.key", \.gateway.key),
    .flag("gateway.tickets", \.gateway.tickets),
    .flag("gateway.cleartext_sessions", \.gateway.cleartextSessions),
    .text("gateway.passwordless_user", \.gateway.passwordlessUser),
    .directory("gateway.novnc_directory", \.gateway.novncDirectory),
    .integer("gateway.handshake_seconds", 1...600, \.gateway.handshakeSeconds),
    .integer("gateway.login_seconds", 1...3600, \.gateway.loginSeconds),
    // The display process waits 2 s, and no longer.
    .integer("gateway.stall_seconds", 1...2, \.gateway.stallSeconds),
    .integer("gateway.connections_before_login", 1...100_000, \.gateway.strangers),
    .integer(
      "gateway.connections_before_login_per_address", 1...100_000, \.gateway.strangersPerAddress),
    .integer("gateway.viewers", 1...100_000, \.gateway.viewers),
    .integer("logins.failures", 1...1000, \.logins.failures),
    .integer("logins.window_seconds", 1...86_400, \.logins.windowSeconds),
    .integer("logins.lockout_seconds", 1...86_400, \.logins.lockoutSeconds),
    .integer("logins.ticket_seconds", 1...86_400, \.logins.ticketSeconds),
    .text("programs.vmm", \.programs.vmm, empty: false),
    .text("programs.display", \.programs.display, empty: false),
    .flag("desktops.stop_at_exit", \.desktops.stopAtExit),
    .integer("desktops.boots_at_once", 0...10_000, \.desktops.bootsAtOnce),
    .decimal("memory.overcommit_ratio", 0.1...100, \.memory.overcommitRatio),
    .integer("memory.reserve_mib", 0...100_000_000, \.memory.reserveMiB),
    .integer("memory.watermark_percent", 1...90, \.memory.watermarkPercent),
    .integer("memory.critical_percent", 0...89, \.memory.criticalPercent),
    .choice("log.level", CarrelConfiguration.Log.levels, \.log.level),
  ]
}
