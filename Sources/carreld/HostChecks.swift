import ControlAPI
import Foundation
import SiteConfiguration

/// What `carrel doctor` looks at.
struct HostChecks {
  private typealias Check = DoctorDocument.Check

  private let configuration: CarrelConfiguration
  private let directory: SiteDirectory
  /// Whether this is the carreld that holds the ports.
  private let running: Bool

  init(_ configuration: CarrelConfiguration, running: Bool) {
    self.configuration = configuration
    directory = SiteDirectory(configuration)
    self.running = running
  }

  func report() -> DoctorDocument {
    var checks = [kvm()]
    checks += [program("carrel-vmm", configuration.programs.vmm)]
    checks += [program("carrel-display", configuration.programs.display)]
    checks += packages()
    checks += [access("state directory", directory.state)]
    checks += [access("runtime directory", directory.runtime), socketPaths()]
    checks += [disk(), memory()]
    if !running { checks += ports() }
    checks += security()
    return DoctorDocument(checks: checks)
  }

  // MARK: The host

  private func kvm() -> Check {
    let descriptor = open("/dev/kvm", O_RDWR | O_CLOEXEC)
    guard descriptor < 0 else {
      close(descriptor)
      return Check(name: "KVM", state: .ok, detail: "/dev/kvm opens")
    }
    switch errno {
    case ENOENT:
      return Check(
        name: "KVM", state: .failed, detail: "there is no /dev/kvm",
        remedy: "enable virtualization in the firmware (or nesting in the hypervisor above), then "
          + "'modprobe kvm_intel' or 'modprobe kvm_amd'")
    case EACCES, EPERM:
      return Check(
        name: "KVM", state: .failed, detail: "/dev/kvm may not be opened by \(NSUserName())",
        remedy: "usermod -aG kvm \(NSUserName()), then log in again")
    default:
      return Check(
        name: "KVM", state: .failed,
        detail: "/dev/kvm does not open: \(String(cString: strerror(errno)))",
        remedy: "look into 'dmesg | grep kvm'")
    }
  }

  private func program(_ name: String, _ configured: String) -> Check {
    if let path = Places.program(configured) {
      return Check(name: name, state: .ok, detail: path)
    }
    return Check(
      name: name, state: .failed, detail: "'\(configured)' is not found beside carreld or on PATH",
      remedy: "install it there, or set programs.\(name.dropFirst("carrel-".count)) in the "
        + "configuration")
  }

  private func packages() -> [Check] {
    var checks = [
      package(
        "seabios", "/usr/share/seabios/bios-256k.bin", missing: .warning,
        "only kernels can be booted, no ISO and no disk")
    ]
    if !configuration.gateway.web.isEmpty {
      checks.append(
        package(
          "novnc", configuration.gateway.novncDirectory + "/vnc.html", missing: .failed,
          "browsers get no viewer"))
    }
    return checks
  }

  private func package(
    _ name: String, _ file: String, missing: Check.State, _ consequence: String
  ) -> Check {
    guard Foundation.access(file, R_OK) != 0 else {
      return Check(name: "package \(name)", state: .ok, detail: file)
    }
    return Check(
      name: "package \(name)", state: missing, detail: "\(file) is missing: \(consequence)",
      remedy: "apt-get install \(name)")
  }

  // MARK: Directories

  private func access(_ name: String, _ path: String) -> Check {
    var status = stat()
    // SAFETY: stat fills the structure given or fails.
    guard stat(path, &status) == 0 else {
      return missing(name, path)
    }
    guard status.st_uid == geteuid(), Foundation.access(path, R_OK | W_OK | X_OK) == 0 else {
      return Check(
        name: name, state: .failed, detail: "\(path) is not \(NSUserName())'s to write",
        remedy: "chown -R \(NSUserName()) \(path)")
    }
    guard status.st_mode & 0o077 == 0 else {
      return Check(
        name: name, state: .warning, detail: "\(path) is open to other users",
        remedy: "chmod 700 \(path)")
    }
    return Check(name: name, state: .ok, detail: path)
  }

  private func missing(_ name: String, _ path: String) -> Check {
    var parent = path
    while Foundation.access(parent, F_OK) != 0, parent != "/" {
      parent = URL(fileURLWithPath: parent).deletingLastPathComponent().path
    }
    guard Foundation.access(parent, W_OK | X_OK) == 0 else {
      return Check(
        name: name, state: .failed, detail: "\(path) is missing and \(parent) may not be written",
        remedy: "mkdir -p \(path) && chown \(NSUserName()) \(path) as root")
    }
    return Check(name: name, state: .ok, detail: "\(path), made at first start")
  }

  /// Addresses of Unix sockets hold 107 bytes.
  private func socketPaths() -> Check {
    let longest = directory.runtime.utf8.count + "/desktops/".count + 34 + "/display".count
    guard longest <= 107 else {
      return Check(
        name: "socket paths", state: .failed,
        detail: "\(directory.runtime) is too long for sockets below it",
        remedy:
          "choose a runtime directory of at most \(107 - longest + directory.runtime.utf8.count) bytes"
      )
    }
    return Check(name: "socket paths", state: .ok, detail: "short enough")
  }

  // MARK: Resources

  private func disk() -> Check {
    var path = directory.state
    while Foundation.access(path, F_OK) != 0, path != "/" {
      path = URL(fileURLWithPath: path).deletingLastPathComponent().path
    }
    var status = statvfs()
    // SAFETY: statvfs fills the structure given or fails.
    guard statvfs(path, &status) == 0 else {
      return Check(name: "disk", state: .failed, detail: "\(path) cannot be examined")
    }
    let free = UInt64(status.f_bavail).multipliedReportingOverflow(by: UInt64(status.f_frsize))
    let mebibytes = free.partialValue >> 20
    let detail = "\(mebibytes) MiB free for \(directory.state)"
    switch mebibytes {
    case ..<64:
      return Check(name: "disk", state: .failed, detail: detail, remedy: "make room there")
    case ..<1024:
      return Check(name: "disk", state: .warning, detail: detail, remedy: "make room there")
    default: return Check(name: "disk", state: .ok, detail: detail)
    }
  }

  private func memory() -> Check {
    let text = (try? String(contentsOfFile: "/proc/meminfo", encoding: .utf8)) ?? ""
    let line = text.split(separator: "\n").first { $0.hasPrefix("MemAvailable:") }
    let kibibytes = line?.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0
    let mebibytes = kibibytes / 1024
    return Check(
      name: "memory", state: mebibytes < 512 ? .warning : .ok,
      detail: "\(mebibytes) MiB available",
      remedy: mebibytes < 512 ? "end something, or make pools smaller" : nil)
  }

  private func ports() -> [Check] {
    (configuration.gateway.listen + configuration.gateway.web).filter { $0.port != 0 }.map {
      endpoint in
      let name = "port \(endpoint.port)"
      guard let error = PortProbe.failure(host: endpoint.host, port: endpoint.port) else {
        return Check(name: name, state: .ok, detail: "\(endpoint) is free")
      }
      return Check(
        name: name, state: .failed, detail: "\(endpoint) cannot be listened on: \(error)",
        remedy: "'ss -ltnp' shows who uses it; or choose another in the configuration")
    }
  }

  private func security() -> [Check] {
    var checks: [Check] = []
    if configuration.gateway.cleartextSessions {
      checks.append(
        Check(
          name: "clear text", state: .warning,
          detail: "sessions may run unencrypted outside this host",
          remedy: "set gateway.cleartext_sessions to false"))
    }
    if !configuration.gateway.passwordlessUser.isEmpty {
      checks.append(
        Check(
          name: "passwords", state: .warning,
          detail: "anybody is '\(configuration.gateway.passwordlessUser)' without a password",
          remedy: "empty gateway.passwordless_user"))
    }
    if !configuration.gateway.webTLS, !configuration.gateway.web.isEmpty {
      checks.append(
        Check(
          name: "web TLS", state: .warning, detail: "browsers are served over plain HTTP",
          remedy: "set gateway.web_tls to true unless a proxy does TLS"))
    }
    return checks
  }
}
