import ControlAPI
import Foundation
import Identity
import NIOSSL
import SiteConfiguration

/// What `carrel doctor` looks at.
struct HostChecks {
  typealias Check = DoctorDocument.Check

  /// What carreld holds open for a viewer: the viewer, and the display process with
  /// the sockets to it.
  private static let descriptorsPerViewer = 5
  /// Listeners, the store, desktops, programs that are being started.
  private static let otherDescriptors = 250

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
    var checks = kvm()
    checks += [program("carrel-vmm", configuration.programs.vmm)]
    checks += [program("carrel-display", configuration.programs.display)]
    checks += packages()
    checks += [access("state directory", directory.state)]
    checks += [access("runtime directory", directory.runtime), socketPaths()]
    checks += [disk(), memory(), openFiles()]
    if !running { checks += ports() }
    checks += [certificate()]
    checks += security()
    return DoctorDocument(checks: checks)
  }

  /// The report, made on a thread of its own: programs are run for it.
  func reportAside() async -> DoctorDocument {
    await aside { $0.report() }
  }

  /// Why no desktop can be started here, with the remedy; `nil` if nothing is known
  /// against it.
  func obstacle() async -> String? {
    await aside { checks in
      checks.kvm().first { $0.state == .failed && $0.name.lowercased().hasPrefix("kvm") }.map {
        $0.detail + ($0.remedy.map { ": \($0)" } ?? "")
      }
    }
  }

  private func aside<Answer: Sendable>(
    _ body: @escaping @Sendable (HostChecks) -> Answer
  ) async -> Answer {
    await withCheckedContinuation { continuation in
      Thread.detachNewThread { continuation.resume(returning: body(self)) }
    }
  }

  // MARK: The host

  /// The VMM knows what it needs of KVM; where it cannot be asked, whether there is any.
  private func kvm() -> [Check] {
    let device = KVMDevice.check()
    guard device.state == .ok, let path = Places.program(configuration.programs.vmm) else {
      return [device]
    }
    return MachineProbe.checks(of: path, device: device)
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
        "seabios", "/usr/share/seabios/bios-256k.bin", "/usr/share/seabios/vgabios-stdvga.bin",
        missing: .warning, "only kernels can be booted, no ISO and no disk"),
      package(
        "ovmf", "/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd",
        missing: .warning, "pools with UEFI do not start"),
      package(
        "passt", "/usr/bin/passt", missing: .warning, "pools with the network 'user' do not start"),
      package(
        "restic", "/usr/bin/restic", missing: .warning, "no desktop is backed up or restored"),
      package("zstd", "/usr/bin/zstd", missing: .warning, "no desktop is exported or imported"),
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
    _ name: String, _ files: String..., missing: Check.State, _ consequence: String
  ) -> Check {
    guard let file = files.first(where: { Foundation.access($0, R_OK) != 0 }) else {
      return Check(
        name: "package \(name)", state: .ok, detail: files.joined(separator: ", "))
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

  /// carreld takes what the hard limit allows.
  private func openFiles() -> Check {
    var limit = rlimit()
    // SAFETY: getrlimit fills the structure given or fails.
    guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else {
      return Check(name: "open files", state: .warning, detail: "the limit cannot be found out")
    }
    let gateway = configuration.gateway
    let wanted =
      gateway.viewers * Self.descriptorsPerViewer + gateway.strangers + Self.otherDescriptors
    let detail = "\(limit.rlim_max) at once, \(gateway.viewers) viewers may need \(wanted)"
    guard limit.rlim_max < rlim_t(wanted) else {
      return Check(name: "open files", state: .ok, detail: detail)
    }
    return Check(
      name: "open files", state: .warning, detail: detail,
      remedy: "set LimitNOFILE=\(wanted) in carreld's unit ('ulimit -Hn' in a shell), or a lower "
        + "gateway.viewers")
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

  // MARK: Security

  func certificate() -> Check {
    let issued = CertificateDirectory(path: directory.certificates)
    let isIssued = configuration.gateway.certificate.isEmpty
    let file = isIssued ? issued.certificatePath : configuration.gateway.certificate
    let key = isIssued ? issued.keyPath : configuration.gateway.key
    if isIssued, Foundation.access(file, F_OK) != 0 {
      return Check(name: "certificate", state: .ok, detail: "\(file), issued at first start")
    }
    for path in [file, key] where Foundation.access(path, R_OK) != 0 {
      return Check(
        name: "certificate", state: .failed, detail: "\(path) cannot be read by \(NSUserName())",
        remedy: "put it there and let \(NSUserName()) read it, or name another in the configuration"
      )
    }
    do {
      let chain = try NIOSSLCertificate.fromPEMFile(file)
      guard let own = chain.first else { throw NIOSSLError.failedToLoadCertificate }
      _ = try NIOSSLContext(
        configuration: .makeServerConfiguration(
          certificateChain: chain.map { .certificate($0) },
          privateKey: .privateKey(try NIOSSLPrivateKey(file: key, format: .pem))))
      return expiry(of: file, at: own.notValidAfter, isIssued: isIssued)
    } catch {
      return Check(
        name: "certificate", state: .failed,
        detail: "\(file) and \(key) are not a certificate and its key in PEM",
        remedy: isIssued
          ? "remove both, and carreld issues new ones" : "name files that belong together")
    }
  }

  private func expiry(of file: String, at end: time_t, isIssued: Bool) -> Check {
    let (days, remedy) = (
      (end - time(nil)) / 86_400,
      isIssued ? "start carreld anew: it issues another" : "renew it, then start carreld anew"
    )
    return switch end - time(nil) {
    case ..<0:
      Check(
        name: "certificate", state: .failed, detail: "\(file) has expired", remedy: remedy)
    case ..<(30 * 86_400):
      Check(
        name: "certificate", state: .warning, detail: "\(file) expires in \(days) day(s)",
        remedy: remedy)
    default:
      Check(name: "certificate", state: .ok, detail: "\(file), good for \(days) days")
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
